"""Engine: draws images of many requests at once, on one device."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from corrector.adapters import AdapterBank, AdapterError, PackedAdapter
from corrector.base import (
    BaseSpec,
    decode_latents,
    load_scheduler,
    load_text_encoders,
    load_transformer,
    load_vae,
)
from corrector.dreambooth.blocks import compile_blocks
from corrector.errors import UserError
from corrector.sampling import latent_shape
from serving.adapter_identity import AdapterIdentity
from serving.engine.adapter_cache import AdapterSource
from serving.engine.denoiser import Denoiser
from serving.engine.fair_queue import FairQueue
from serving.engine.input_processor import InputProcessor
from serving.engine.request import (
    AdapterUnavailable,
    DeadlineMissed,
    EngineFailure,
    GeneratedImage,
    ImageRequest,
    Overloaded,
)
from serving.engine.request_state import ModelInputs, PreviewCallback, RequestState
from serving.engine.stats import EngineObserver, EngineStats
from serving.settings import EngineSettings

logger = logging.getLogger(__name__)

_FAILURES = 3
"""Steps in a row that may fail before the engine counts as broken."""
_SWEEP_SECONDS = 0.1
"""How often expired and cancelled requests are removed while nothing is drawn."""


class Engine:
    """Continuous batching: a loop in its own thread runs denoising steps over all admitted requests, while other threads
    encode text, fetch adapters and decode images.

    While steps have the same bucket of rows, a request's image depends only on the request, bit by bit; between buckets it
    differs by the rounding of matrix products of different shapes.
    """

    def __init__(
        self,
        spec: BaseSpec,
        source: AdapterSource,
        settings: EngineSettings,
        *,
        observer: EngineObserver | None = None,
    ) -> None:
        """Load the base and start the loop.

        Raises:
            UserError: The base cannot be loaded, or does not fit.
        """
        self.spec = spec
        self.settings = settings
        self._observer = observer or EngineObserver()
        name = settings.device
        self.device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
        )
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        dtype = spec.compute_dtype(self.device)
        transformer = load_transformer(spec, device=self.device)
        compiled = settings.compiled and compile_blocks(transformer, self.device, "inductor")
        self._bank = AdapterBank(
            transformer,
            slots=settings.slots,
            rank=settings.rank,
            dtype=dtype,
            base_revision=spec.revision,
            static=compiled,
            row_wise=True,
        )
        self._vae = load_vae(spec, device=self.device)
        self._config = transformer.config
        self._denoiser = Denoiser(
            transformer,
            self._bank,
            load_scheduler(spec),
            vae_scale_factor=spec.vae_scale_factor,
            row_buckets=settings.row_buckets,
        )
        self._inputs = InputProcessor(
            load_text_encoders(spec, dtype=dtype, device=self.device), self._bank, source, settings
        )
        self._decoding = ThreadPoolExecutor(1, "decoding")
        self._changed = threading.Condition()
        self._requests: set[RequestState] = set()
        """Everything that was submitted and is not done."""
        self._ready: FairQueue[RequestState] = FairQueue()
        self._batch: set[RequestState] = set()
        self._resident: tuple[AdapterIdentity, ...] = ()
        self._preloads: list[tuple[AdapterIdentity, PackedAdapter]] = []
        self._last_step: torch.cuda.Event | None = None
        self._failures = 0
        self._step_began: float | None = None
        self._closing = False
        self._image_seconds = 1.0
        self._last_image = time.monotonic()
        self._loop = threading.Thread(target=self._run, name="denoising", daemon=True)
        self._loop.start()

    def submit(
        self, request: ImageRequest, on_preview: PreviewCallback | None = None
    ) -> Future[GeneratedImage]:
        """Queue a request. Cancelling the future stops the drawing at the next step.

        The future fails with AdapterUnavailable, DeadlineMissed or EngineFailure.

        Raises:
            UserError: The base cannot draw this.
            Overloaded: `max_waiting` images wait already.
            EngineFailure: The engine is closed or broken.
        """
        self._check(request)
        state = RequestState(request, on_preview)
        with self._changed:
            if not self.healthy:
                raise EngineFailure("the engine has stopped")
            waiting = len(self._requests) - len(self._batch)
            if waiting >= self.settings.max_waiting:
                raise Overloaded(
                    f"{waiting} images wait already; try again later",
                    retry_after=max(1.0, waiting * self._image_seconds),
                )
            self._requests.add(state)
        state.future.add_done_callback(lambda _: self._forget(state))
        self._inputs.prepare(request).add_done_callback(partial(self._enqueue, state))
        return state.future

    def preload(self, adapters: Iterable[AdapterIdentity]) -> None:
        """Fetch adapters in the background, in their order, while they fit into host memory; load them into free slots."""
        each = self._bank.layout.size * self._bank.storage.element_size()
        for adapter in islice(adapters, self.settings.adapter_cache_bytes // each):
            self._inputs.adapters.get(adapter).add_done_callback(partial(self._preload, adapter))

    @property
    def healthy(self) -> bool:
        """Whether the loop runs and makes progress."""
        began = self._step_began
        hung = began is not None and time.monotonic() - began > self.settings.stalled_seconds
        return not self._closing and not hung and self._failures < _FAILURES and self._loop.is_alive()

    def stats(self) -> EngineStats:
        """The present state of the engine."""
        drawing = len(self._batch)
        return EngineStats(
            waiting=max(0, len(self._requests) - drawing),
            drawing=drawing,
            resident=self._resident,
            host_adapters=len(self._inputs.adapters),
            host_bytes=self._inputs.adapters.size_bytes,
            adapter_loads=self._denoiser.slots.loads,
            text_bytes=self._inputs.texts.size_bytes,
            healthy=self.healthy,
        )

    def close(self) -> None:
        """Stop; all requests fail with EngineFailure."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._loop.join()
        self._inputs.close()
        self._decoding.shutdown(cancel_futures=True)
        self._fail_all(EngineFailure("the engine has stopped"))
        self._bank.remove()

    def _check(self, request: ImageRequest) -> None:
        if not 1 <= request.num_inference_steps <= self.settings.max_steps:
            raise UserError(
                f"num_inference_steps is {request.num_inference_steps}; expected 1 to {self.settings.max_steps}"
            )
        if not 0 <= request.seed < 2**63:
            raise UserError(f"seed is {request.seed}; expected 0 to 2**63 - 1")
        if not np.isfinite(request.guidance_scale):
            raise UserError("guidance_scale is not a finite number")
        latent_shape(self._config, request.height, request.width, self.spec.vae_scale_factor)

    def _enqueue(self, state: RequestState, prepared: Future[ModelInputs]) -> None:
        error = prepared.exception()
        if error is not None:
            self._fail(state, error)
            return
        with self._changed:
            state.inputs = prepared.result()
            self._ready.put(state.request.user, state)
            self._changed.notify_all()

    def _preload(self, adapter: AdapterIdentity, fetched: Future[PackedAdapter]) -> None:
        error = fetched.exception()
        if error is not None:
            logger.warning("not preloaded: %s", error)
            return
        with self._changed:
            self._preloads.append((adapter, fetched.result()))
            self._changed.notify_all()

    def _run(self) -> None:
        while not self._closing and self._failures < _FAILURES:
            try:
                self._remove_done()
                self._admit()
                if len(self._denoiser):
                    self._step()
                else:
                    with self._changed:
                        if not self._ready and not self._preloads and not self._closing:
                            self._changed.wait(_SWEEP_SECONDS)
            except Exception as error:
                # After any failure (memory, the device) the batch is lost; waiting requests are tried.
                self._failures += 1
                logger.exception("a denoising step failed (%d of %d)", self._failures, _FAILURES)
                failure = EngineFailure(f"drawing failed: {type(error).__name__}: {error}")
                self._denoiser.cancel(self._batch)
                for state in self._batch:
                    self._fail(state, failure)
                self._batch.clear()
        if not self._closing:
            self._fail_all(EngineFailure("the engine is broken; its log says why"))

    def _remove_done(self) -> None:
        """Remove requests whose timeout has run out, or whose caller has cancelled."""
        now = time.monotonic()
        with self._changed:
            expired = [state for state in self._requests if state.expired(now)]
        for state in expired:
            self._fail(state, DeadlineMissed(f"not done within {state.request.timeout:g} s"))
        with self._changed:
            self._ready.remove(lambda state: state.future.done())
        done = {state for state in self._batch if state.future.done()}
        self._denoiser.cancel(done)
        self._batch -= done

    def _admit(self) -> None:
        """Move ready requests into the batch while there is room."""
        slots = self._denoiser.slots
        before = slots.loads
        with self._changed:
            preloads, self._preloads = self._preloads, []
        for adapter, packed in preloads:
            slots.preload(adapter, packed)
        while True:
            with self._changed:
                state = self._ready.peek()
                if state is None or not self._denoiser.has_room(state):
                    break
                self._ready.pop()
            try:
                self._denoiser.admit(state)
            except (AdapterError, UserError) as error:
                self._fail(state, AdapterUnavailable(f"{state.request.adapter}: {error}"))
                continue
            state.started = time.monotonic()
            self._batch.add(state)
        if slots.loads > before:
            self._resident = slots.resident
            for _ in range(slots.loads - before):
                self._observer.adapter_loaded()

    def _step(self) -> None:
        start = self._step_began = time.monotonic()
        try:
            step = self._denoiser.step()
            self._pace()
        finally:
            self._step_began = None
        now = time.monotonic()
        self._failures = 0
        self._observer.stepped(step.rows, now - start)
        for state, latents in step.previews:
            self._decoding.submit(self._show, state, latents)
        for state, latents in step.finished:
            self._batch.discard(state)
            self._decoding.submit(self._finish, state, latents, now)

    def _pace(self) -> None:
        """Keep the host at most one step ahead of a GPU, so that cancelling and admitting take effect at the next step."""
        if self.device.type != "cuda":
            return
        event = torch.cuda.Event()
        event.record()
        if self._last_step is not None:
            self._last_step.synchronize()
        self._last_step = event

    def _show(self, state: RequestState, latents: Tensor) -> None:
        if state.on_preview is None or state.future.done():
            return
        try:
            state.on_preview(state.previews, self._pixels(latents))
            state.previews += 1
        except Exception as error:
            self._fail(state, EngineFailure(f"its preview failed: {type(error).__name__}: {error}"))

    def _finish(self, state: RequestState, latents: Tensor, finished: float) -> None:
        if state.future.done():
            return
        start = time.monotonic()
        try:
            if not bool(torch.isfinite(latents).all()):
                raise EngineFailure(f"{state.request.adapter or 'the base'} drew numbers that are not finite")
            pixels = self._pixels(latents)
        except Exception as error:
            known = isinstance(error, UserError)
            self._fail(state, error if known else EngineFailure(f"decoding failed: {error}"))
            return
        now = time.monotonic()
        image = GeneratedImage(
            pixels,
            state.request.adapter,
            queue_seconds=state.started - state.submitted,
            denoise_seconds=finished - state.started,
            decode_seconds=now - start,
        )
        between = min(now - self._last_image, now - state.submitted)
        self._image_seconds += (between - self._image_seconds) / 10
        self._last_image = now
        self._observer.generated(image)
        self._resolve(state, lambda: state.future.set_result(image))

    def _pixels(self, latents: Tensor) -> np.ndarray:
        image = decode_latents(self._vae, latents[None])[0]
        return image.mul(255).round().byte().permute(1, 2, 0).cpu().numpy()

    def _fail(self, state: RequestState, error: BaseException) -> None:
        self._resolve(state, lambda: state.future.set_exception(error))

    def _forget(self, state: RequestState) -> None:
        with self._changed:
            self._requests.discard(state)

    def _resolve(self, state: RequestState, resolve: Callable[[], None]) -> None:
        """Settle the request's future, unless it is done or cancelled."""
        with self._changed:
            if state.future.done() or not state.future.set_running_or_notify_cancel():
                return
        resolve()

    def _fail_all(self, error: EngineFailure) -> None:
        with self._changed:
            states = list(self._requests)
        for state in states:
            self._fail(state, error)
