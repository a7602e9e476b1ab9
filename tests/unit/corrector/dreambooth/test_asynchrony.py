"""Between two collections of losses the host never waits for the device."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from corrector.dreambooth import Engine
from tests.support.small_sd3 import small_transformer
from tests.support.small_tasks import fine_tune, scheduler

TASKS = (
    fine_tune("guard", 1, rank=4, batch_size=2),
    fine_tune("prior", 2, rank=8, alpha=4, preservation="prior"),
    fine_tune("small images", 3, size=4, batch_size=3, preservation="none"),
)
aten = torch.ops.aten


class Reads(TorchDispatchMode):
    """Lists the operations that look at a value which follows from ``device`` tensors: there a GPU's host would wait.

    What is made of such a tensor is one itself, so a run on the CPU shows it. Copies between host and device it cannot
    show.
    """

    def __init__(self, device: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._storages = {tensor.untyped_storage()._cdata: tensor for tensor in device}
        self.found: list[str] = []

    def __enter__(self) -> "Reads":
        self._methods = _Methods(self)
        self._methods.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._methods.__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        theirs = [leaf for leaf in tree_leaves((args, kwargs)) if self.has(leaf)]
        if theirs:
            values = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default)
            masked = func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default) and any(
                isinstance(leaf, Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(args[1])
            )
            if func in values or masked:
                self.found.append(f"{func} of {[tuple(tensor.shape) for tensor in theirs]}")
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self._storages[leaf.untyped_storage()._cdata] = (
                        leaf  # kept, so that its address is not used again
                    )
        return result

    def has(self, leaf: object) -> bool:
        return isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata in self._storages


class _Methods(TorchFunctionMode):
    """Finds the methods that read a tensor without an operation."""

    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self._reads = reads

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in ("tolist", "numpy", "cpu") and self._reads.has(args[0]):
            self._reads.found.append(f"{func.__name__} of {tuple(args[0].shape)}")
        return func(*args, **(kwargs or {}))


def started(report_every: int, device: str = "cpu", **options: Any) -> tuple[Engine, list[Tensor]]:
    """An engine after its first step, and what lies on its device."""
    transformer = small_transformer("sd35").to(device)
    pack = Engine(transformer, scheduler(), slots=3, rank=8, report_every=report_every, **options)
    for task in TASKS:
        pack.admit(task)
    pack.step()
    return pack, [*transformer.parameters(), *transformer.buffers(), pack.bank.storage]


@pytest.mark.parametrize("options", [{}, {"checkpointing": True}, {"tokens_per_forward": 90}])
def test_a_step_reads_nothing_from_the_device(options: dict[str, Any]) -> None:
    pack, device = started(report_every=100, **options)
    with Reads(device) as reads:
        for _ in range(2):
            assert pack.step() == {}
        assert reads.found == []
        pack.collect()
        assert reads.found == ["tolist of (9, 3)"]  # three steps of three fine-tunes, at once


def test_what_would_read_from_the_device_is_found() -> None:
    numbers = torch.arange(4.0)
    ways: list[Callable[[Tensor], object]] = [
        lambda tensor: tensor.sum().item(),
        lambda tensor: bool(tensor.isfinite().all()),
        lambda tensor: tensor.nonzero(),
        lambda tensor: (tensor + 1).tolist(),
        lambda tensor: tensor.cpu(),
        lambda tensor: tensor[tensor > 2],
    ]
    for way in ways:
        with Reads([numbers]) as reads:
            way(numbers)
        assert reads.found, way


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", [{}, {"checkpointing": True}, {"compile": "eager"}])
def test_a_step_does_not_synchronise_with_cuda(options: dict[str, Any]) -> None:
    pack, _ = started(report_every=100, device="cuda", **options)
    pack.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            assert pack.step() == {}
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(len(pack.history(task.name)) == 5 for task in TASKS)
