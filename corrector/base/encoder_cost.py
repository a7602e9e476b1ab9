"""Operations of the VAE and the text encoders, computed from their configurations; a multiply-add counts as two.

PyTorch's counter gives the same figures (`tests/unit/corrector/test_cost.py`); it needs models of diffusers and transformers,
whose imports take longer than everything else that plans a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def vae_flops(config: Mapping[str, Any], side: int) -> tuple[int, int]:
    """One image of `side` pixels through the encoder and through the decoder of an `AutoencoderKL` with this `config.json`."""
    widths: list[int] = list(config["block_out_channels"])
    layers, latents = int(config.get("layers_per_block", 1)), int(config.get("latent_channels", 4))
    factor = 2 ** (len(widths) - 1)
    small, first, last = side // factor, widths[0], widths[-1]
    middle = _middle(last, small, attention=bool(config.get("mid_block_add_attention", True)))

    encode = _conv(int(config.get("in_channels", 3)), first, side)
    before = first
    for index, width in enumerate(widths):
        at = side // 2**index
        encode += _resnet(before, width, at) + (layers - 1) * _resnet(width, width, at)
        if index < len(widths) - 1:
            encode += _conv(width, width, at // 2)
        before = width
    encode += middle + _conv(last, 2 * latents, small)
    if config.get("use_quant_conv", True):
        encode += _conv(2 * latents, 2 * latents, small, kernel=1)

    decode = _conv(latents, last, small) + middle
    before = last
    for index, width in enumerate(reversed(widths)):
        at = small * 2**index
        decode += _resnet(before, width, at) + layers * _resnet(width, width, at)
        if index < len(widths) - 1:
            decode += _conv(width, width, 2 * at)
        before = width
    decode += _conv(first, int(config.get("out_channels", 3)), side)
    if config.get("use_post_quant_conv", True):
        decode += _conv(latents, latents, small, kernel=1)
    return encode, decode


def clip_flops(config: Mapping[str, Any], tokens: int) -> int:
    """One text of so many tokens through a `CLIPTextModelWithProjection`; absent settings are those of transformers."""
    width = int(config.get("hidden_size", 512))
    layer = 4 * _linear(width, width, tokens) + _attention(width, tokens)
    layer += 2 * _linear(width, int(config.get("intermediate_size", 2048)), tokens)
    return int(config.get("num_hidden_layers", 12)) * layer + _linear(
        width, int(config.get("projection_dim", 512)), 1
    )


def t5_flops(config: Mapping[str, Any], tokens: int) -> int:
    """One text of so many tokens through a `T5EncoderModel`; absent settings are those of transformers."""
    width, inner = (
        int(config.get("d_model", 512)),
        int(config.get("d_kv", 64)) * int(config.get("num_heads", 8)),
    )
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
    layer = 4 * _linear(width, inner, tokens) + _attention(inner, tokens)
    layer += (3 if gated else 2) * _linear(width, int(config.get("d_ff", 2048)), tokens)
    return int(config.get("num_layers", 6)) * layer


def _linear(width: int, out: int, tokens: int) -> int:
    return 2 * width * out * tokens


def _attention(width: int, tokens: int) -> int:
    """Of all heads together: queries with keys, and weights with values."""
    return 4 * width * tokens * tokens


def _conv(channels: int, out: int, side: int, kernel: int = 3) -> int:
    """`side`: of the result, in pixels."""
    return 2 * channels * out * kernel * kernel * side * side


def _resnet(channels: int, out: int, side: int) -> int:
    shortcut = _conv(channels, out, side, kernel=1) if channels != out else 0
    return _conv(channels, out, side) + _conv(out, out, side) + shortcut


def _middle(width: int, side: int, *, attention: bool) -> int:
    pixels = side * side
    attended = 4 * _linear(width, width, pixels) + _attention(width, pixels) if attention else 0
    return 2 * _resnet(width, width, side) + attended
