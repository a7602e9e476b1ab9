"""adapter_check: whether an engine can use an adapter, before any request is routed to it."""

from collections.abc import Callable

from corrector.adapters import AdapterError, layout_of
from corrector.base import BaseSpec
from corrector.base.weights import transformer_skeleton
from serving.adapter_identity import AdapterIdentity
from serving.engine.adapter_cache import AdapterDiskCache
from serving.engine.request import AdapterUnavailable


def adapter_check(spec: BaseSpec, rank: int, disk: AdapterDiskCache) -> Callable[[AdapterIdentity], None]:
    """A function that checks an adapter's bytes, keys, shapes and rank against an engine of this base and `rank`.

    The function raises AdapterUnavailable. It needs the base's configuration, not its weights, and stores the adapter in
    `disk` for the engines of this machine.
    """
    layout = layout_of(transformer_skeleton(spec), rank)

    def check(adapter: AdapterIdentity) -> None:
        try:
            layout.check(disk.load(adapter))
        except AdapterError as error:
            raise AdapterUnavailable(f"{adapter}: {error}") from error

    return check
