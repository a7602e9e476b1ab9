"""Data-parallel training on a small machine: single-threaded workers that average their gradients."""

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def launch(work: Callable[..., None], workers: int, *arguments: object) -> None:
    """Run `work(rank, workers, *arguments)` in `workers` processes of one thread each, joined by gloo."""
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = Path(folder) / "rendezvous"
        mp.spawn(_enter, args=(work, workers, rendezvous, arguments), nprocs=workers, join=True)


def _enter(
    rank: int, work: Callable[..., None], workers: int, rendezvous: Path, arguments: tuple[object, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=workers)
    try:
        work(rank, workers, *arguments)
    finally:
        dist.destroy_process_group()


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the workers."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


def learning_rate(step: int, steps: int, peak: float, warmup: int = 100, decay: float = 0.4) -> float:
    """Warmup, a plateau at `peak`, then a linear descent to zero over the last `decay` of `steps`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * min(1.0, max(0.0, (steps - step) / (decay * steps)))


class Average:
    """An exponential moving average of parameters, its memory growing from the start up to `decay`."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], decay: float = 0.999) -> None:
        self.parameters = list(parameters)
        self.values = [parameter.detach().clone() for parameter in self.parameters]
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the parameters' present values."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [parameter.detach() for parameter in self.parameters], weight)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the averages in the parameters' place."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            parameter.copy_(value)


def save(path: Path, state: dict[str, object]) -> None:
    """Write a checkpoint so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
