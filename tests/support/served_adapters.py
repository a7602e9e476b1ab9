"""Real adapters for the embedded base, visibly different from one another, and a source that hands them out."""

from __future__ import annotations

import math
import shutil
import threading
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel

from corrector.adapters import WEIGHTS_NAME, Adapter, AdapterBank, save_adapter
from corrector.base import load_transformer, resolve_base
from corrector.errors import UserError
from corrector.files import file_sha256
from serving.adapter_identity import AdapterIdentity


class FolderSource:
    """An engine's source: adapter folders on disk, as the registry would deliver them. Counts what it is asked for."""

    def __init__(self, folders: Iterable[tuple[AdapterIdentity, Path]] = ()) -> None:
        self.folders = dict(folders)
        self.fetched: Counter[AdapterIdentity] = Counter()
        self.available = threading.Event()
        self.available.set()

    def fetch(self, adapter: AdapterIdentity, destination: Path) -> None:
        self.fetched[adapter] += 1
        self.available.wait(120)
        if adapter not in self.folders:
            raise UserError(f"{adapter}: not found")
        shutil.copytree(self.folders[adapter], destination)


def write_adapter(
    folder: Path, name: str, *, seed: int, version: str = "1", rank: int = 4, base_revision: str | None = None
) -> AdapterIdentity:
    """A random adapter for the embedded base in `folder`; see `random_adapter`."""
    save_adapter(random_adapter(seed, rank=rank, base_revision=base_revision), folder)
    return AdapterIdentity(name, version, file_sha256(folder / WEIGHTS_NAME))


def random_adapter(seed: int, *, rank: int = 4, base_revision: str | None = None) -> Adapter:
    """For the embedded base, or one that says it is of another revision; strong enough to change every image."""
    bank = _bank()
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for target in bank.layout.targets:
        down = torch.randn(rank, target.inputs, generator=generator) / math.sqrt(target.inputs)
        weights[target.path] = (down, torch.randn(target.outputs, rank, generator=generator) * 0.05)
    revision = resolve_base("embedded").revision if base_revision is None else base_revision
    return Adapter(rank, float(rank), weights, base_revision=revision)


@cache
def _bank() -> AdapterBank:
    transformer: SD3Transformer2DModel = load_transformer(resolve_base("embedded"))
    return AdapterBank(transformer, slots=1, rank=1)
