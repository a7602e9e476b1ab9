"""The stacked LoRA weights of one Linear, and the forward hook that adds their updates."""

from typing import cast

import torch
from torch import Tensor, nn

from corrector.adapters.adapter import AdapterError
from corrector.adapters.plans import Current, RunPlan, StaticPlan

_ATTRIBUTE = "adapter_layer"


class StackedLayer:
    """``A [slots + 1, R, in]`` and ``B [slots + 1, out, R]`` of one target Linear, attached to it until :meth:`detach`.

    One forward hook serves all Linears: it reads the layer from an attribute of its Linear, so that one compiled graph
    serves all equal blocks. The layer is no module, so ``state_dict()``, ``to()`` and PEFT do not see its weights.
    """

    def __init__(
        self, linear: nn.Linear, path: str, down: nn.Parameter, up: nn.Parameter, current: Current
    ) -> None:
        """Raises :class:`AdapterError` where another bank's layer is attached."""
        if _ATTRIBUTE in vars(linear):
            raise AdapterError(f"{path} has an adapter bank already; remove() that one first")
        self.path = path
        self.down = down
        self.up = up
        self.current = current
        self._linear = linear
        self._handle = linear.register_forward_hook(_add_update)
        setattr(linear, _ATTRIBUTE, self)

    def detach(self) -> None:
        """Leaves the Linear as it was found; a second call does nothing."""
        self._handle.remove()
        if vars(self._linear).get(_ATTRIBUTE) is self:
            delattr(self._linear, _ATTRIBUTE)

    def add(self, x: Tensor, output: Tensor) -> Tensor:
        """``output [B, ..., out]`` plus every row's own ``scale * B A x`` for ``x [B, ..., in]``."""
        plan = self.current.plan
        if plan is None:
            return output
        if isinstance(plan, StaticPlan):
            return self._add_by_row(plan, x, output)
        return self._add_by_run(plan, x, output) if plan.groups else output

    def _add_by_run(self, plan: RunPlan, x: Tensor, output: Tensor) -> Tensor:
        whole, base = plan.stop - plan.start == plan.batch, output
        if not whole:  # a slice of all rows would still cost an operation, forward and backward
            x, base = x[plan.start : plan.stop], output[plan.start : plan.stop]
        down = _chosen(plan, self.down[:, : plan.rank], x.dtype)
        up = _chosen(plan, self.up[:, :, : plan.rank], x.dtype)
        inner = torch.bmm(x.reshape(plan.groups, -1, x.shape[-1]), down.transpose(1, 2))
        if plan.scale is not None:
            inner = inner * plan.scale.to(inner.dtype)
        if not torch.is_grad_enabled():  # in place: autograd has not saved the output
            base.view(plan.groups, -1, base.shape[-1]).baddbmm_(inner, up.transpose(1, 2))
            return output
        updated = torch.baddbmm(base.reshape(plan.groups, -1, base.shape[-1]), inner, up.transpose(1, 2))
        updated = updated.view(base.shape)
        if whole:
            return updated
        return torch.cat([output[: plan.start], updated, output[plan.stop :]])

    def _add_by_row(self, plan: StaticPlan, x: Tensor, output: Tensor) -> Tensor:
        rows = x.shape[0]
        slots = plan.slots[:rows]
        scales = plan.scales.index_select(0, slots).to(x.dtype).view(-1, 1, 1)
        down = self.down.index_select(0, slots).to(x.dtype)
        up = self.up.index_select(0, slots).to(x.dtype)
        inner = torch.bmm(x.reshape(rows, -1, x.shape[-1]), down.transpose(1, 2)) * scales
        updated = torch.baddbmm(output.reshape(rows, -1, output.shape[-1]), inner, up.transpose(1, 2))
        return updated.view(output.shape)


def _add_update(linear: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return cast(StackedLayer, getattr(linear, _ATTRIBUTE)).add(args[0], output)


def _chosen(plan: RunPlan, weight: Tensor, dtype: torch.dtype) -> Tensor:
    if plan.gather is None:
        return weight[plan.first : plan.first + plan.groups].to(dtype)
    return weight.index_select(0, plan.gather).to(dtype)
