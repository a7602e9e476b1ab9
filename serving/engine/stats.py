"""EngineObserver and EngineStats: events and state of an engine, for metrics."""

from dataclasses import dataclass

from serving.adapter_identity import AdapterIdentity
from serving.engine.request import GeneratedImage


class EngineObserver:
    """Called by the engine from its threads; a method must not block. This one does nothing."""

    def stepped(self, rows: int, seconds: float) -> None:
        """A denoising step of `rows` rows has ended."""

    def generated(self, image: GeneratedImage) -> None:
        """An image is done."""

    def adapter_loaded(self) -> None:
        """An adapter was copied to the device."""


@dataclass(frozen=True)
class EngineStats:
    """The state of an engine at one moment.

    Attributes:
        waiting: Images that were submitted and have no denoising step yet.
        drawing: Images in the batch.
        resident: Adapters on the device.
        host_adapters: Adapters in host memory, which take `host_bytes`.
        adapter_loads: Adapters copied to the device so far.
        text_bytes: Host memory of text embeddings.
    """

    waiting: int
    drawing: int
    resident: tuple[AdapterIdentity, ...]
    host_adapters: int
    host_bytes: int
    adapter_loads: int
    text_bytes: int
    healthy: bool
