"""AdamW for many adapters at once: every slot its own settings, state and gradient norm."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from corrector.adapters import AdapterBank
from corrector.prompts import HyperParameters


@dataclass(frozen=True)
class SlotState:
    """What the optimiser knows of one slot, padding left out: three vectors ``[P]`` and the number of updates."""

    weights: Tensor
    mean: Tensor
    variance: Tensor
    updates: int


class PackedAdamW:
    """Updates the weights of an :class:`AdapterBank`, one slot as one vector.

    A slot's weights lie together in the bank's ``storage``, and their gradients are gathered in a tensor of the same
    shape: a slot's gradient norm is one reduction, and its update one call of ``torch.optim.AdamW``'s fused kernel, so
    that a slot's arithmetic is PyTorch's own and no other slot has part in it.

    Neither :meth:`gather` nor :meth:`step` waits for the device.
    """

    def __init__(self, bank: AdapterBank) -> None:
        """Raises ValueError unless ``bank`` is in float32: in bfloat16 most updates would be rounded away."""
        if bank.storage.dtype != torch.float32:
            raise ValueError(f"LoRA weights are trained in float32, not {bank.storage.dtype}")
        self._bank = bank
        self._parameters = bank.parameters()
        self.gradients = torch.zeros_like(bank.storage)
        """``[slots + 1, P]``: what :meth:`gather` collected and the next :meth:`step` uses."""
        self._gathered = False
        self._rows = [nn.Parameter(row) for row in bank.storage]
        self._adamw = torch.optim.AdamW([{"params": [row]} for row in self._rows], fused=True)
        self._limits = torch.full((len(self._rows),), float("inf"), device=bank.storage.device)

    def configure(self, slot: int, hyperparameters: HyperParameters) -> None:
        """Starts ``slot`` afresh, without moments, with these settings; the learning rate comes with every step."""
        self._adamw.state.pop(self._rows[slot], None)
        self._adamw.param_groups[slot].update(
            betas=(hyperparameters.beta1, hyperparameters.beta2),
            eps=hyperparameters.epsilon,
            weight_decay=hyperparameters.weight_decay,
        )
        self._limits[slot].fill_(hyperparameters.max_grad_norm)

    @torch.no_grad()
    def gather(self) -> None:
        """Moves the gradients of all backward passes since the last step into :attr:`gradients`.

        Data-parallel workers sum that tensor before they :meth:`step`.
        """
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
        """Clips and updates the slots named, each with its learning rate; all others stay as they are.

        Uses :attr:`gradients`, gathered now unless they were. Returns the gradient norms before clipping,
        ``[len(learning_rates)]`` in the mapping's order. A slot whose norm is not finite ruins its own weights only.
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
        """A copy on the CPU of what ``slot``, an adapter of ``rank``, needs to go on exactly as it would have."""
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
        """Puts back what :meth:`state_of` gave, into any slot of a bank with the same targets and rank enough."""
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
    """Norm of ``vector [P]`` as the norm of its pieces' norms.

    On a CPU, PyTorch's norm of one long float32 vector adds up rounding, and clipping would go by it.
    """
    whole = vector.shape[0] // _PIECE * _PIECE
    pieces = torch.linalg.vector_norm(vector[:whole].view(-1, _PIECE), dim=1)
    rest = torch.linalg.vector_norm(vector[whole:], keepdim=True)
    return torch.linalg.vector_norm(torch.cat([pieces, rest]))
