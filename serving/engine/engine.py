"""Engine: draws what it is asked to, for everybody at once, on one device."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corrector.adapters import AdapterBank, AdapterError, PackedAdapter
from corrector.base import (
    BaseSpec,
    TextEmbeddings,
    decode_latents,
    load_scheduler,
    load_text_encoders,
    load_transformer,
    load_vae,
)
from corrector.dreambooth.blocks import compile_blocks
from corrector.errors import UserError
from corrector.sampling import latent_shape
from corrector.settings import Settings
from serving.engine.adapters import AdapterSource, DiskCache, packed_bytes, packing
from serving.engine.denoiser import Denoiser, Work
from serving.engine.job import Job, Preview, preview_steps
from serving.engine.observing import EngineStats, Observer
from serving.engine.request import (
    AdapterUnavailable,
    DeadlineMissed,
    Drawn,
    EngineFailure,
    ImageRequest,
    Overloaded,
)
from serving.engine.settings import EngineSettings
from serving.engine.single_flight import SingleFlightCache
from serving.engine.turns import Turns
from serving.identity import AdapterIdentity

logger = logging.getLogger(__name__)

_FAILURES = 3
"""Steps in a row that may fail before the engine counts as broken."""
_SWEEP_SECONDS = 0.1
"""How often requests that nobody waits for any more are looked for while nothing is drawn."""


class Engine:
    """One loop in a thread of its own takes a denoising step after the other of whatever rows there are; text is encoded,
    adapters are fetched and images are decoded in other threads meanwhile.

    A request's image depends, to the bit, on nothing but the request, as long as steps have the same bucket of rows; across
    buckets it is the same up to the rounding of differently shaped products.
    """

    def __init__(
        self,
        spec: BaseSpec,
        source: AdapterSource,
        settings: EngineSettings,
        *,
        observer: Observer | None = None,
    ) -> None:
        """Loads the base and starts the loop.

        Raises:
            UserError: The base cannot be loaded, or does not fit.
        """
        self.spec = spec
        self.settings = settings
        self._observer = observer
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
        self._encoders = load_text_encoders(spec, dtype=dtype, device=self.device)
        self._config = transformer.config
        self._denoiser = Denoiser(
            transformer,
            self._bank,
            load_scheduler(spec),
            vae_scale_factor=spec.vae_scale_factor,
            row_buckets=settings.row_buckets,
        )
        self._encoding = ThreadPoolExecutor(1, "encoding")
        self._fetching = ThreadPoolExecutor(settings.fetches, "fetching")
        self._decoding = ThreadPoolExecutor(1, "decoding")
        self._texts = SingleFlightCache[str, TextEmbeddings](
            self._encode, size=_text_bytes, budget=settings.text_cache_bytes, executor=self._encoding
        )
        cache = settings.cache or Settings.from_environment().cache / "serving"
        disk = DiskCache(cache, source, budget=settings.disk_cache_bytes)
        self._adapters = SingleFlightCache(
            packing(disk, lambda adapter: self._bank.pack(adapter, pin=self.device.type == "cuda")),
            size=packed_bytes,
            budget=settings.adapter_cache_bytes,
            executor=self._fetching,
            refused_seconds=settings.refused_seconds,
        )
        self._changed = threading.Condition()
        self._jobs: set[Job] = set()
        self._ready: Turns[Job] = Turns()
        self._drawing: dict[Work, Job] = {}
        self._resident: tuple[AdapterIdentity, ...] = ()
        self._preloads: list[tuple[AdapterIdentity, PackedAdapter]] = []
        self._last_step: torch.cuda.Event | None = None
        self._failures = 0
        self._step_began: float | None = None
        self._closing = False
        self._image_seconds = 1.0
        self._last_drawn = time.monotonic()
        self._loop = threading.Thread(target=self._run, name="denoising", daemon=True)
        self._loop.start()

    def submit(self, request: ImageRequest, on_preview: Preview | None = None) -> Future[Drawn]:
        """Asks for an image. Cancelling the future stops its drawing at the next step.

        The future fails with AdapterUnavailable, DeadlineMissed or EngineFailure.

        Raises:
            UserError: The base cannot draw this.
            Overloaded: `max_waiting` images wait already.
            EngineFailure: The engine is closed or broken.
        """
        self._check(request)
        job = Job(request, Future(), on_preview, time.monotonic())
        with self._changed:
            if not self.healthy:
                raise EngineFailure("the engine has stopped")
            waiting = len(self._jobs) - len(self._drawing)
            if waiting >= self.settings.max_waiting:
                raise Overloaded(
                    f"{waiting} images wait already; try again later",
                    retry_after=max(1.0, waiting * self._image_seconds),
                )
            self._jobs.add(job)
        job.future.add_done_callback(lambda _: self._forget(job))
        self._prepare(job)
        return job.future

    def preload(self, adapters: Iterable[AdapterIdentity]) -> None:
        """Fetches adapters in the background, as many of the first as fit into host memory, and puts them on the device as
        long as slots are free."""
        each = self._bank.layout.size * self._bank.storage.element_size()
        for adapter in islice(adapters, self.settings.adapter_cache_bytes // each):
            self._adapters.get(adapter).add_done_callback(partial(self._preload, adapter))

    @property
    def healthy(self) -> bool:
        """Whether it draws; who finds that it does not starts another."""
        began = self._step_began
        hung = began is not None and time.monotonic() - began > self.settings.stalled_seconds
        return not self._closing and not hung and self._failures < _FAILURES and self._loop.is_alive()

    def stats(self) -> EngineStats:
        """How it stands."""
        drawing = len(self._drawing)
        return EngineStats(
            waiting=max(0, len(self._jobs) - drawing),
            drawing=drawing,
            resident=self._resident,
            host_adapters=len(self._adapters),
            host_bytes=self._adapters.held_bytes,
            adapter_loads=self._denoiser.slots.loads,
            text_bytes=self._texts.held_bytes,
            healthy=self.healthy,
        )

    def close(self) -> None:
        """Stops; what is under way fails with EngineFailure."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._loop.join()
        for executor in (self._encoding, self._fetching, self._decoding):
            executor.shutdown(cancel_futures=True)
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

    def _prepare(self, job: Job) -> None:
        """Has its texts encoded and its adapter fetched, at the same time."""
        request = job.request
        prompt = self._texts.get(request.prompt)
        negative = self._texts.get(request.negative_prompt) if request.guidance_scale > 1 else None
        packed = self._adapters.get(request.adapter) if request.adapter else None
        parts: list[Future[Any]] = [part for part in (prompt, negative, packed) if part is not None]
        job.awaited = len(parts)

        def arrived(_: Future[Any]) -> None:
            with self._changed:
                job.awaited -= 1
                if job.awaited:
                    return
            error = next((part.exception() for part in parts if part.exception()), None)
            if error is not None:
                self._fail(job, error)
                return
            work = Work(
                request,
                prompt.result(),
                None if negative is None else negative.result(),
                None if packed is None else packed.result(),
                previews=preview_steps(request),
            )
            with self._changed:
                job.work = work
                self._ready.put(request.user, job)
                self._changed.notify_all()

        for part in parts:
            part.add_done_callback(arrived)

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
                self._sweep()
                self._admit()
                if len(self._denoiser):
                    self._step()
                else:
                    with self._changed:
                        if not self._ready and not self._preloads and not self._closing:
                            self._changed.wait(_SWEEP_SECONDS)
            except Exception as error:
                # Whatever it was (memory, the device): those under way are lost, the others are tried.
                self._failures += 1
                logger.exception("a denoising step failed (%d of %d)", self._failures, _FAILURES)
                failure = EngineFailure(f"drawing failed: {type(error).__name__}: {error}")
                self._denoiser.cancel(self._drawing.keys())
                for job in self._drawing.values():
                    self._fail(job, failure)
                self._drawing.clear()
        if not self._closing:
            self._fail_all(EngineFailure("the engine is broken; its log says why"))

    def _sweep(self) -> None:
        """Lets go of requests that nobody waits for any more."""
        now = time.monotonic()
        with self._changed:
            expired = [job for job in self._jobs if job.expired(now)]
        for job in expired:
            self._fail(job, DeadlineMissed(f"not done within {job.request.timeout:g} s"))
        with self._changed:
            self._ready.drop(lambda job: job.future.done())
        gone = [work for work, job in self._drawing.items() if job.future.done()]
        self._denoiser.cancel(gone)
        for work in gone:
            del self._drawing[work]

    def _admit(self) -> None:
        """Starts what waits, user by user, as far as there is room."""
        before = self._denoiser.slots.loads
        with self._changed:
            preloads, self._preloads = self._preloads, []
        for adapter, packed in preloads:
            self._denoiser.slots.preload(adapter, packed)
        while True:
            with self._changed:
                job = self._ready.next()
                if job is None or job.work is None or not self._denoiser.has_room(job.work):
                    break
                self._ready.take()
            try:
                self._denoiser.admit(job.work)
            except (AdapterError, UserError) as error:
                self._fail(job, AdapterUnavailable(f"{job.request.adapter}: {error}"))
                continue
            job.started = time.monotonic()
            self._drawing[job.work] = job
        if self._denoiser.slots.loads > before:
            self._resident = self._denoiser.slots.resident
            if self._observer is not None:
                for _ in range(self._denoiser.slots.loads - before):
                    self._observer.loaded()

    def _step(self) -> None:
        start = self._step_began = time.monotonic()
        try:
            step = self._denoiser.step()
            self._pace()
        finally:
            self._step_began = None
        now = time.monotonic()
        self._failures = 0
        if self._observer is not None:
            self._observer.stepped(step.rows, now - start)
        for work, latents in step.shown:
            self._decoding.submit(self._show, self._drawing[work], latents)
        for work, latents in step.done:
            self._decoding.submit(self._finish, self._drawing.pop(work), latents, now)

    def _pace(self) -> None:
        """Lets the host be one step ahead of a GPU and no more: cancelling and admitting act on the next step."""
        if self.device.type != "cuda":
            return
        event = torch.cuda.Event()
        event.record()
        if self._last_step is not None:
            self._last_step.synchronize()
        self._last_step = event

    def _show(self, job: Job, latents: Tensor) -> None:
        if job.on_preview is None or job.future.done():
            return
        try:
            job.on_preview(job.previews, self._pixels(latents))
            job.previews += 1
        except Exception as error:
            self._fail(job, EngineFailure(f"its preview failed: {type(error).__name__}: {error}"))

    def _finish(self, job: Job, latents: Tensor, finished: float) -> None:
        if job.future.done():
            return
        start = time.monotonic()
        try:
            if not bool(torch.isfinite(latents).all()):
                raise EngineFailure(f"{job.request.adapter or 'the base'} drew numbers that are not finite")
            pixels = self._pixels(latents)
        except Exception as error:
            self._fail(
                job, error if isinstance(error, UserError) else EngineFailure(f"decoding failed: {error}")
            )
            return
        now = time.monotonic()
        drawn = Drawn(
            pixels,
            job.request.adapter,
            queue_seconds=job.started - job.submitted,
            denoise_seconds=finished - job.started,
            decode_seconds=now - start,
        )
        between = min(now - self._last_drawn, now - job.submitted)
        self._image_seconds += (between - self._image_seconds) / 10
        self._last_drawn = now
        if self._observer is not None:
            self._observer.drawn(drawn)
        self._settle(job, lambda: job.future.set_result(drawn))

    def _pixels(self, latents: Tensor) -> np.ndarray:
        image = decode_latents(self._vae, latents[None])[0]
        return image.mul(255).round().byte().permute(1, 2, 0).cpu().numpy()

    def _encode(self, prompt: str) -> TextEmbeddings:
        """Alone, so that an embedding does not depend on what else is asked for."""
        return self._encoders.encode([prompt]).to(self.device, self._bank.storage.dtype)

    def _fail(self, job: Job, error: BaseException) -> None:
        self._settle(job, lambda: job.future.set_exception(error))

    def _forget(self, job: Job) -> None:
        with self._changed:
            self._jobs.discard(job)

    def _settle(self, job: Job, settle: Callable[[], None]) -> None:
        """Ends a request, unless it has ended, or its caller has gone."""
        with self._changed:
            if job.future.done() or not job.future.set_running_or_notify_cancel():
                return
        settle()

    def _fail_all(self, error: EngineFailure) -> None:
        with self._changed:
            jobs = list(self._jobs)
        for job in jobs:
            self._fail(job, error)


def _text_bytes(embeddings: TextEmbeddings) -> int:
    return sum(part.numel() * part.element_size() for part in (embeddings.prompt, embeddings.pooled))
