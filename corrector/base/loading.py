"""The parts of a base, each loaded alone: whoever needs the VAE does not read T5-XXL.

Weights come from safetensors files in the base's folder and nowhere else; nothing is downloaded here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError

from corrector.base.spec import BaseSpec, components
from corrector.base.text import TextEncoders
from corrector.errors import UserError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

Part = TypeVar("Part")
Model = TypeVar("Model", bound=torch.nn.Module)


def load_transformer(
    spec: BaseSpec, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> SD3Transformer2DModel:
    """The frozen transformer, in eval mode; raises :class:`UserError` where its files do not make one."""
    from diffusers import SD3Transformer2DModel

    return _load_model(SD3Transformer2DModel, spec, "transformer", dtype, device)


def load_vae(
    spec: BaseSpec, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> AutoencoderKL:
    """The frozen VAE, in eval mode; raises :class:`UserError` where its files do not make one."""
    from diffusers import AutoencoderKL

    return _load_model(AutoencoderKL, spec, "vae", dtype, device)


def load_scheduler(spec: BaseSpec) -> FlowMatchEulerDiscreteScheduler:
    """The flow-matching scheduler with the base's shift; raises :class:`UserError` where there is none."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return _load(
        spec,
        "scheduler",
        lambda: FlowMatchEulerDiscreteScheduler.from_pretrained(
            spec.folder, subfolder="scheduler", local_files_only=True
        ),
    )


def load_text_encoders(
    spec: BaseSpec, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> TextEncoders:
    """Both CLIPs and, where the base has it, T5, with their tokenizers; raises :class:`UserError` on a
    broken part."""
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

    def part(tokenizer: Any, name: str, encoder: Any, number: str) -> tuple[Any, Any]:
        words = f"tokenizer{number}"
        reader = _load(
            spec, words, lambda: tokenizer.from_pretrained(spec.folder / words, local_files_only=True)
        )
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


def _load_model(
    kind: type[Model], spec: BaseSpec, part: str, dtype: torch.dtype, device: torch.device | str
) -> Model:
    """The model in ``part``, whole: a weight that its files lack would be left random by the libraries."""
    reader: Any = kind
    with _without_progress_bars():
        model, report = _load(
            spec,
            part,
            lambda: reader.from_pretrained(
                spec.folder,
                subfolder=part,
                torch_dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            ),
        )
    lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if lacking:
        raise UserError(
            f'base "{spec.reference}": {spec.folder / part} lacks {len(lacking)} weights of a '
            f"{kind.__name__}, {lacking[0]} the first; download or save the pipeline again"
        )
    frozen: Model = model.to(device).requires_grad_(False).eval()
    return frozen


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """transformers draws a bar per part on stderr, which garbles a job's log."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _load(spec: BaseSpec, part: str, read: Callable[[], Part]) -> Part:
    try:
        return read()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f'base "{spec.reference}": {spec.folder / part} does not load ({error}); '
            "restore it as StableDiffusion3Pipeline.save_pretrained writes it, in safetensors"
        ) from error
