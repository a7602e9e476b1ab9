"""AdamW for many adapters at once; each slot has its own settings, state and gradient norm."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from corrector.adapters import AdapterBank
from corrector.prompts import HyperParameters


@dataclass(frozen=True)
class SlotState:
    """The optimiser's state of one slot without padding: three vectors ``[P]`` and the number of updates."""

    weights: Tensor
    mean: Tensor
    variance: Tensor
    updates: int


class PackedAdamW:
    """AdamW over an :class:`AdapterBank`, in which each slot's weights are one parameter with settings of its own.

    Gradients are gathered into a tensor of the shape of the bank's ``storage``: a slot's gradient norm is one reduction,
    and its update is one call of ``torch.optim.AdamW``'s fused kernel. Nothing here waits for the device.
    """

    def __init__(self, bank: AdapterBank) -> None:
        """Raises ValueError unless ``bank`` is in float32: in bfloat16 most updates would be rounded away."""
        if bank.storage.dtype != torch.float32:
            raise ValueError(f"LoRA weights are trained in float32, not {bank.storage.dtype}")
        self._bank = bank
        self._parameters = bank.parameters()
        self.gradients = torch.zeros_like(bank.storage)
        """``[slots + 1, P]``: written by :meth:`gather`, used by the next :meth:`step`."""
        self._gathered = False
        self._rows = [nn.Parameter(row) for row in bank.storage]
        self._adamw = torch.optim.AdamW([{"params": [row]} for row in self._rows], fused=True)
        self._limits = torch.full((len(self._rows),), float("inf"), device=bank.storage.device)

    def configure(self, slot: int, hyperparameters: HyperParameters) -> None:
        """Resets ``slot`` and gives it these settings; the learning rate is an argument of :meth:`step`."""
        self._adamw.state.pop(self._rows[slot], None)
        self._adamw.param_groups[slot].update(
            betas=(hyperparameters.beta1, hyperparameters.beta2),
            eps=hyperparameters.epsilon,
            weight_decay=hyperparameters.weight_decay,
        )
        self._limits[slot].fill_(hyperparameters.max_grad_norm)

    @torch.no_grad()
    def gather(self) -> None:
        """Moves the gradients of all backward passes since the last step into :attr:`gradients`, which workers then sum."""
        given = [parameter.grad for parameter in self._parameters]
        if all(gradient is None for gradient in given):
            self.gradients.zero_()
        else:
            torch.cat(
                [
                    torch.zeros_like(parameter).flatten(1) if gradient is None else gradient.flatten(1)
                    for parameter, gradient in zip(self._parameters, given, strict=True)
                ],
                dim=1,
                out=self.gradients,
            )
        for parameter in self._parameters:
            parameter.grad = None
        self._gathered = True

    @torch.no_grad()
    def step(self, learning_rates: Mapping[int, float]) -> Tensor:
        """Clips and updates the slots in ``learning_rates``; the others stay as they are.

        Calls :meth:`gather` if that was not done. Returns the norms before clipping, ``[len(learning_rates)]``. A norm
        that is not finite affects only the weights of its own slot.
        """
        if not self._gathered:
            self.gather()
        self._gathered = False
        norms = []
        for slot, row in enumerate(self._rows):
            row.grad = None
            self._adamw.param_groups[slot]["lr"] = learning_rates.get(slot, 0.0)
        for slot in learning_rates:
            gradient = self.gradients[slot]
            norm = _norm(gradient)
            gradient.mul_((self._limits[slot] / (norm + 1e-6)).clamp(max=1.0))
            self._rows[slot].grad = gradient
            norms.append(norm)
        self._adamw.step()
        return torch.stack(norms)

    def state_of(self, slot: int, rank: int) -> SlotState:
        """A copy of the state of ``slot``, an adapter of ``rank``, on the CPU."""
        used = self._bank.used(rank)
        row = self._rows[slot]
        state = self._adamw.state.get(row)
        weights = row.detach()[used].cpu()
        if not state:
            return SlotState(weights, torch.zeros_like(weights), torch.zeros_like(weights), 0)
        return SlotState(
            weights, state["exp_avg"][used].cpu(), state["exp_avg_sq"][used].cpu(), int(state["step"].item())
        )

    @torch.no_grad()
    def restore(self, slot: int, rank: int, state: SlotState) -> None:
        """Restores a :meth:`state_of` in any slot of a bank with the same targets and a sufficient rank."""
        used = self._bank.used(rank)
        expected = int(used.sum())
        for vector in (state.weights, state.mean, state.variance):
            if vector.shape != (expected,):
                raise ValueError(
                    f"slot state holds {tuple(vector.shape)} numbers; rank {rank} here needs {expected}"
                )
        row = self._rows[slot]
        row.zero_()
        row[used] = state.weights.to(row)
        self._adamw.state.pop(row, None)
        if state.updates:
            mean, variance = torch.zeros_like(row), torch.zeros_like(row)
            mean[used] = state.mean.to(mean)
            variance[used] = state.variance.to(variance)
            updates = torch.tensor(float(state.updates), device=row.device)
            self._adamw.state[row] = {"step": updates, "exp_avg": mean, "exp_avg_sq": variance}


_PIECE = 4096


def _norm(vector: Tensor) -> Tensor:
    """Norm of ``vector [P]``, by pieces: on a CPU PyTorch's norm of one long float32 vector accumulates rounding."""
    whole = vector.shape[0] // _PIECE * _PIECE
    pieces = torch.linalg.vector_norm(vector[:whole].view(-1, _PIECE), dim=1)
    rest = torch.linalg.vector_norm(vector[whole:], keepdim=True)
    return torch.linalg.vector_norm(torch.cat([pieces, rest]))
