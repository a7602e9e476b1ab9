"""InputProcessor: computes the transformer's inputs for a request."""

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

from corrector.adapters import AdapterBank, AdapterError, PackedAdapter
from corrector.base import TextEmbeddings, TextEncoders
from corrector.settings import Settings
from serving.adapter_identity import AdapterIdentity
from serving.engine.adapter_cache import AdapterDiskCache, AdapterSource
from serving.engine.request import AdapterUnavailable, ImageRequest
from serving.engine.request_state import ModelInputs
from serving.engine.single_flight import SingleFlightCache
from serving.settings import EngineSettings


class InputProcessor:
    """Encodes texts and fetches adapters in its own threads; requests at the same time share the work."""

    def __init__(
        self, encoders: TextEncoders, bank: AdapterBank, source: AdapterSource, settings: EngineSettings
    ) -> None:
        self._encoders = encoders
        self._bank = bank
        self._encoding = ThreadPoolExecutor(1, "encoding")
        self._fetching = ThreadPoolExecutor(settings.fetches, "fetching")
        cache = settings.cache or Settings.from_environment().cache / "serving"
        self._disk = AdapterDiskCache(cache, source, budget=settings.disk_cache_bytes)
        self.texts = SingleFlightCache[str, TextEmbeddings](
            self._encode, size=_text_bytes, budget=settings.text_cache_bytes, executor=self._encoding
        )
        self.adapters = SingleFlightCache[AdapterIdentity, PackedAdapter](
            self._fetch,
            size=lambda packed: packed.values.numel() * packed.values.element_size(),
            budget=settings.adapter_cache_bytes,
            executor=self._fetching,
            failure_seconds=settings.refused_seconds,
        )

    def prepare(self, request: ImageRequest) -> Future[ModelInputs]:
        """The inputs of a request; fails with the error of the first text or adapter that fails."""
        prompt = self.texts.get(request.prompt)
        negative = self.texts.get(request.negative_prompt) if request.guidance_scale > 1 else None
        adapter = self.adapters.get(request.adapter) if request.adapter else None
        parts: list[Future[Any]] = [part for part in (prompt, negative, adapter) if part is not None]
        prepared: Future[ModelInputs] = Future()
        missing, lock = len(parts), Lock()

        def arrived(_: Future[Any]) -> None:
            nonlocal missing
            with lock:
                missing -= 1
                if missing:
                    return
            error = next((part.exception() for part in parts if part.exception()), None)
            if error is not None:
                prepared.set_exception(error)
                return
            prepared.set_result(
                ModelInputs(
                    prompt.result(),
                    None if negative is None else negative.result(),
                    None if adapter is None else adapter.result(),
                )
            )

        for part in parts:
            part.add_done_callback(arrived)
        return prepared

    def close(self) -> None:
        """Stop the threads; drop waiting work."""
        for executor in (self._encoding, self._fetching):
            executor.shutdown(cancel_futures=True)

    def _encode(self, prompt: str) -> TextEmbeddings:
        """Encode one prompt per call, so that its embedding does not depend on other prompts."""
        storage = self._bank.storage
        return self._encoders.encode([prompt]).to(storage.device, storage.dtype)

    def _fetch(self, adapter: AdapterIdentity) -> PackedAdapter:
        loaded = self._disk.load(adapter)
        try:
            return self._bank.pack(loaded, pin=self._bank.storage.device.type == "cuda")
        except AdapterError as error:
            raise AdapterUnavailable(f"{adapter}: {error}") from error


def _text_bytes(embeddings: TextEmbeddings) -> int:
    return sum(part.numel() * part.element_size() for part in (embeddings.prompt, embeddings.pooled))
