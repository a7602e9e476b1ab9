"""Whether an adapter can be served: its bytes, keys, shapes and rank, before anybody is given it."""

from __future__ import annotations

from collections.abc import Callable

from corrector.adapters import AdapterError, layout_of
from corrector.base import BaseSpec
from corrector.base.weights import transformer_skeleton
from serving.engine.adapters import DiskCache
from serving.engine.request import AdapterUnavailable
from serving.identity import AdapterIdentity


def fitness(spec: BaseSpec, rank: int, disk: DiskCache) -> Callable[[AdapterIdentity], None]:
    """What raises AdapterUnavailable for an adapter that an engine of this base and `rank` would refuse.

    It needs the base's configuration, not its weights. What it looked at lies in `disk`, for the engines of this machine.
    """
    layout = layout_of(transformer_skeleton(spec), rank)

    def check(adapter: AdapterIdentity) -> None:
        try:
            layout.check(disk.load(adapter))
        except AdapterError as error:
            raise AdapterUnavailable(f"{adapter}: {error}") from error

    return check
