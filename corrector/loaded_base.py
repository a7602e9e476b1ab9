"""Base: a loaded Stable Diffusion 3. Each component is loaded at its first use and kept; text encoders are released."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corrector.adapters import Adapter, AdapterBank
from corrector.base import (
    BaseSpec,
    ContentCache,
    LatentPosterior,
    Precision,
    TextEmbeddings,
    decode_latents,
    encode_images,
    encode_prompts,
    load_scheduler,
    load_transformer,
    load_vae,
    resolve_base,
)
from corrector.sampling import SampleRow, sample_images, sample_latents
from corrector.settings import Settings

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

NEGATIVE_PROMPT = ""
"""The unconditional side of classifier-free guidance, as in ``StableDiffusion3Pipeline``."""
_ROWS_AT_ONCE = {"cuda": 32, "cpu": 8}
"""Images in a batch. More do not fill a GPU better; on a CPU their activations no longer fit its cache."""


def load_base(
    reference: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    precision: Precision = "auto",
    offload: bool = False,
    cache: ContentCache | None = None,
) -> Base:
    """The base that ``reference`` names: "embedded", a hub id, a folder, a ``.safetensors`` file, or an ``s3://`` URL.

    Weights are read at their first use. ``precision`` is that of the transformer's weights, "nf4" for four bits. ``cache``
    None means a folder in ``CORRECTOR_CACHE``. The other arguments are those of :class:`Base`.

    Raises :class:`UserError` if there is no such base or it is not a complete Stable Diffusion 3.
    """
    cache = cache or ContentCache(Settings.from_environment().cache / "tensors")
    spec = resolve_base(reference, precision=precision)
    return Base(spec, device=device, dtype=dtype, offload=offload, cache=cache)


class Base:
    """A frozen text-to-image model on one device.

    Attributes:
        spec: The base's identity, and the settings it was made for.
        device: Device of the computation. The weights of an offloaded transformer are in host memory.
        dtype: Data type of the computation in transformer and text encoders; the VAE computes in float32.
        offload: Whether the transformer's weights stay in host memory, see ``load_transformer``.
        cache: Cache of text embeddings and latents, or None.
    """

    def __init__(
        self,
        spec: BaseSpec,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        offload: bool = False,
        cache: ContentCache | None = None,
    ) -> None:
        """``device`` None: CUDA where there is one, else the CPU; ``dtype`` None: as ``spec.compute_dtype`` says."""
        self.spec = spec
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = dtype or spec.compute_dtype(self.device)
        self.offload = offload
        self.cache = cache

    @cached_property
    def transformer(self) -> SD3Transformer2DModel:
        """Loaded at first use; raises :class:`UserError` as ``load_transformer`` does."""
        return load_transformer(self.spec, device=self.device, dtype=self.dtype, offload=self.offload)

    @cached_property
    def vae(self) -> AutoencoderKL:
        """Loaded at first use; raises :class:`UserError` as ``load_vae`` does."""
        return load_vae(self.spec, device=self.device)

    @cached_property
    def scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        """Loaded at first use; raises :class:`UserError` as ``load_scheduler`` does."""
        return load_scheduler(self.spec)

    @property
    def rows_at_once(self) -> int:
        """Default number of images in a batch."""
        return _ROWS_AT_ONCE.get(self.device.type, 8)

    def encode(self, texts: Sequence[str]) -> dict[str, TextEmbeddings]:
        """Embeddings of every distinct text, one row each, on the CPU.

        If some are not in the cache, text encoders are loaded on the base's device (on the CPU if the transformer is
        offloaded) and released afterwards. Raises :class:`UserError` if they cannot be loaded.
        """
        device = "cpu" if self.offload else self.device
        return encode_prompts(self.spec, texts, cache=self.cache, device=device, dtype=self.dtype)

    def encode_images(self, images: Tensor) -> LatentPosterior:
        """Posterior of ``images [N, 3, H, W]``, values 0 to 1, on the CPU; see ``corrector.base.encode_images``."""
        return encode_images(self.vae, images.to(self.device)).to("cpu")

    def decode(self, latents: Tensor) -> Tensor:
        """Images ``[N, 3, H, W]``, values 0 to 1, on the CPU, of normalised ``latents [N, C, h, w]``."""
        return decode_latents(self.vae, latents).cpu()

    @contextmanager
    def bank(self, *adapters: Adapter) -> Iterator[AdapterBank | None]:
        """A bank that holds ``adapters`` in slots 1, 2, ... and is removed afterwards; None without adapters.

        Raises :class:`AdapterError` if they do not fit the base or each other, or the base has a bank already.
        """
        if not adapters:
            yield None
            return
        bank = AdapterBank(
            self.transformer,
            slots=len(adapters),
            rank=max(adapter.rank for adapter in adapters),
            targets=tuple(dict.fromkeys(path for adapter in adapters for path in adapter.weights)),
            base_revision=self.spec.revision,
            device=self.device,
        )
        try:
            for slot, adapter in enumerate(adapters, start=1):
                bank.load(slot, adapter)
            yield bank
        finally:
            bank.remove()

    def sample(
        self,
        prompts: str | Sequence[str],
        *,
        adapter: Adapter | None = None,
        seeds: Sequence[int] = (0,),
        negative_prompt: str = NEGATIVE_PROMPT,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        batch_rows: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Images ``[N, 3, H, W]``, values 0 to 1, on the CPU: for each prompt in turn, one for each seed.

        In float32 the images equal those of ``StableDiffusion3Pipeline`` with a CPU generator of the same seed, to 1e-4.

        Args:
            adapter: A LoRA adapter that is applied to all images.
            num_inference_steps: None: the base's default; likewise ``guidance_scale``.
            height: In pixels; None: the base's resolution; likewise ``width``.
            batch_rows: Images in a batch; None: :attr:`rows_at_once`.
            progress: Called with the number of images done.

        Raises:
            UserError: A size that the base cannot draw, or an adapter of another base.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        embeddings = self.encode([negative_prompt, *texts])
        rows = self.rows(
            [(text, seed) for text in texts for seed in seeds],
            embeddings,
            slot=0 if adapter is None else 1,
            negative_prompt=negative_prompt,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        )
        with self.bank(*(() if adapter is None else (adapter,))) as bank:
            return self.sample_rows(
                rows, bank, height=height, width=width, batch_rows=batch_rows, progress=progress
            )

    def rows(
        self,
        texts: Sequence[tuple[str, int]],
        embeddings: Mapping[str, TextEmbeddings],
        *,
        slot: int = 0,
        negative_prompt: str = NEGATIVE_PROMPT,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> list[SampleRow]:
        """The rows of (text, seed) pairs for :meth:`sample_rows`; ``slot`` 0 is the base, any other that of a bank."""
        steps = num_inference_steps or self.spec.num_inference_steps
        guidance = self.spec.guidance_scale if guidance_scale is None else guidance_scale
        return [
            SampleRow(
                prompt=embeddings[text],
                negative=embeddings[negative_prompt],
                num_inference_steps=steps,
                guidance_scale=guidance,
                slot=slot,
                seed=seed,
            )
            for text, seed in texts
        ]

    def sample_rows(
        self,
        rows: Sequence[SampleRow],
        bank: AdapterBank | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        batch_rows: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Images of ``rows``, which may use any slot of ``bank``; otherwise as :meth:`sample`."""
        return sample_images(
            self.transformer,
            self.vae,
            bank,
            self.scheduler,
            rows,
            height=height or self.spec.resolution,
            width=width or self.spec.resolution,
            batch_rows=batch_rows or self.rows_at_once,
            progress=progress,
            device=self.device,
        ).cpu()

    def sample_latents(
        self,
        rows: Sequence[SampleRow],
        bank: AdapterBank | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        batch_rows: int | None = None,
    ) -> Tensor:
        """Like :meth:`sample_rows`, but returns normalised latents ``[N, C, h, w]`` on the CPU."""
        return sample_latents(
            self.transformer,
            bank,
            self.scheduler,
            rows,
            height=height or self.spec.resolution,
            width=width or self.spec.resolution,
            vae_scale_factor=self.spec.vae_scale_factor,
            batch_rows=batch_rows or self.rows_at_once,
            device=self.device,
        ).cpu()
