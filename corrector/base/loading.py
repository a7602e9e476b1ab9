"""Loading of a base's components, each by itself: loading the VAE neither reads nor downloads T5-XXL.

Weights come from safetensors files; a component whose weights are incomplete or not finite is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from corrector.base.headers import weight_files, weights_variant
from corrector.base.memory import ensure_memory
from corrector.base.precision import quantise, require_bitsandbytes
from corrector.base.spec import QUANTISED, BaseSpec, components
from corrector.base.text_encoders import TextEncoders
from corrector.base.weights import check_finite, check_transformer_files, check_vae_file
from corrector.errors import UserError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

Loaded = TypeVar("Loaded")
Model = TypeVar("Model", bound=torch.nn.Module)


def load_transformer(
    spec: BaseSpec,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    offload: bool = False,
) -> SD3Transformer2DModel:
    """The frozen transformer in the base's precision, in eval mode, on ``device``.

    Args:
        dtype: Of its computation, and of its weights where they are not quantised; None: ``spec.compute_dtype``.
        offload: Keep the weights in host memory and copy each block to ``device`` when it computes. Training then needs
            gradient checkpointing, without which autograd keeps every block's weights on the device.

    Raises:
        UserError: The files do not fit the configuration, a weight is not finite, ``device`` has too little memory, or
            the precision needs a package that is not installed.
    """
    device = torch.device(device)
    dtype = dtype or spec.compute_dtype(device)
    if spec.precision in QUANTISED:
        require_bitsandbytes()
        if offload:
            raise UserError(
                f'base "{spec.reference}": weights in {spec.precision} cannot be offloaded; '
                "use one of the two: precision bf16 with offload, or nf4 without"
            )
    ensure_memory(spec, device, dtype=dtype, offload=offload)
    files = check_transformer_files(spec)
    transformer = _read_transformer(spec, dtype)
    if spec.precision in QUANTISED or offload:
        check_finite(spec, transformer, files)
        if offload:
            return _offloaded(transformer, device)
        quantise(transformer, device=device, dtype=dtype)
        return transformer
    transformer.to(device)
    check_finite(spec, transformer, files)
    return transformer


def load_vae(
    spec: BaseSpec, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> AutoencoderKL:
    """The frozen VAE, in eval mode; raises :class:`UserError` if its files are incomplete or damaged."""
    from diffusers import AutoencoderKL

    if spec.single_file is None or not spec.single_file.has_vae:
        return _load_model(AutoencoderKL, spec, "vae", dtype, device)
    path = spec.single_file.source.path
    check_vae_file(spec, path)
    vae = _read_single_file(AutoencoderKL, spec, path, "vae", dtype)
    return _checked(spec, vae, [path], device)


def load_scheduler(spec: BaseSpec) -> FlowMatchEulerDiscreteScheduler:
    """The flow-matching scheduler with the base's shift; raises :class:`UserError` if there is none."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    folder = spec.component("scheduler")
    return _load(
        spec,
        folder,
        lambda: FlowMatchEulerDiscreteScheduler.from_pretrained(folder, local_files_only=True),
    )


def load_text_encoders(
    spec: BaseSpec, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> TextEncoders:
    """Both CLIPs and, where the base has it, T5, with their tokenizers; raises :class:`UserError` for a broken one."""
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

    def part(tokenizer: Any, name: str, encoder: Any, number: str) -> tuple[Any, Any]:
        words = spec.component(f"tokenizer{number}")
        reader = _load(spec, words, lambda: tokenizer.from_pretrained(words, local_files_only=True))
        return reader, _load_model(encoder, spec, name, dtype, device)

    has_t5 = "text_encoder_3" in components(spec.folder)
    return TextEncoders(
        clips=[
            part(CLIPTokenizer, "text_encoder", CLIPTextModelWithProjection, ""),
            part(CLIPTokenizer, "text_encoder_2", CLIPTextModelWithProjection, "_2"),
        ],
        t5=part(T5TokenizerFast, "text_encoder_3", T5EncoderModel, "_3") if has_t5 else None,
        max_sequence_length=spec.max_sequence_length,
        width=spec.text_width,
    )


def _read_transformer(spec: BaseSpec, dtype: torch.dtype) -> SD3Transformer2DModel:
    from diffusers import SD3Transformer2DModel

    if spec.single_file is None:
        return _read(SD3Transformer2DModel, spec, spec.component("transformer"), dtype)
    return _read_single_file(SD3Transformer2DModel, spec, spec.single_file.source.path, "transformer", dtype)


def _offloaded(transformer: SD3Transformer2DModel, device: torch.device) -> SD3Transformer2DModel:
    """``transformer`` with accelerate's hooks, which copy weights to ``device`` while they are used."""
    from accelerate import cpu_offload

    weights = transformer.state_dict()
    if device.type == "cuda":
        weights = {name: tensor.pin_memory() for name, tensor in weights.items()}
    blocks = list(transformer.transformer_blocks)
    offloaded: SD3Transformer2DModel = cpu_offload(
        transformer,
        execution_device=device,
        offload_buffers=True,
        state_dict=weights,
        preload_module_classes=sorted({type(block).__name__ for block in blocks}),
    )
    for block in blocks:
        block.register_forward_hook(_release, always_call=True)
    return offloaded


def _release(block: torch.nn.Module, *_: object) -> None:
    """Removes a block's weights from the device.

    Gradient checkpointing ends a recomputed forward by an exception, after which accelerate's own hook is not called.
    """
    hook: Any = block._hf_hook
    hook.post_forward(block, None)


def _load_model(
    kind: type[Model], spec: BaseSpec, part: str, dtype: torch.dtype, device: torch.device | str
) -> Model:
    folder = spec.component(part)
    files = weight_files(folder)
    return _checked(spec, _read(kind, spec, folder, dtype), files, device)


def _checked(spec: BaseSpec, model: Model, files: list[Path], device: torch.device | str) -> Model:
    placed = model.to(device)
    check_finite(spec, placed, files)
    return placed


def _read(kind: type[Model], spec: BaseSpec, folder: Path, dtype: torch.dtype) -> Model:
    """The model in ``folder``; refuses missing weights, which the libraries would initialise at random."""
    reader: Any = kind
    with _quietly():
        model, report = _load(
            spec,
            folder,
            lambda: reader.from_pretrained(
                folder,
                torch_dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                variant=weights_variant(folder),
                output_loading_info=True,
            ),
        )
    lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if lacking:
        raise UserError(
            f'base "{spec.reference}": {folder} lacks {len(lacking)} weights of a '
            f"{kind.__name__}, {lacking[0]} the first; download or save the pipeline again"
        )
    frozen: Model = model.requires_grad_(False).eval()
    return frozen


def _read_single_file(kind: type[Model], spec: BaseSpec, path: Path, part: str, dtype: torch.dtype) -> Model:
    """The model in a single file, whose headers were checked, with the pipeline's configuration."""
    reader: Any = kind
    with _quietly():
        model: Model = _load(
            spec,
            path,
            lambda: reader.from_single_file(
                str(path), config=str(spec.folder), subfolder=part, torch_dtype=dtype, local_files_only=True
            ),
        )
    return model.requires_grad_(False).eval()


@contextmanager
def _quietly() -> Iterator[None]:
    """Hides transformers' progress bars, and diffusers' warning about modules kept in fp32, which these models lack."""
    from transformers.utils import logging as transformers_logging

    casts = logging.getLogger("diffusers.models.modeling_utils")
    shown, level = transformers_logging.is_progress_bar_enabled(), casts.level
    transformers_logging.disable_progress_bar()
    casts.setLevel(logging.ERROR)
    try:
        yield
    finally:
        casts.setLevel(level)
        if shown:
            transformers_logging.enable_progress_bar()


def _load(spec: BaseSpec, place: Path, read: Callable[[], Loaded]) -> Loaded:
    from safetensors import SafetensorError

    try:
        return read()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f'base "{spec.reference}": {place} does not load ({error}); '
            "restore it as StableDiffusion3Pipeline.save_pretrained writes it, in safetensors"
        ) from error
