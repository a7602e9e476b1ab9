"""The operations of VAE and text encoders by their configurations, against PyTorch's count on models without weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from corrector.base.encoder_cost import clip_flops, t5_flops, vae_flops
from tests.benchmarks.cost import CONFIGS

VAE = CONFIGS["vae"]
"""Stable Diffusion 3's."""


def counted(forward: Callable[[], object]) -> int:
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        forward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_quant_conv": True, "use_post_quant_conv": True, "latent_channels": 4},
        {"mid_block_add_attention": False, "layers_per_block": 1},
        {
            "block_out_channels": [32, 64],
            "down_block_types": ["DownEncoderBlock2D"] * 2,
            "up_block_types": ["UpDecoderBlock2D"] * 2,
        },
        {"layers_per_block": 3, "in_channels": 4, "out_channels": 1},
    ],
)
@pytest.mark.parametrize("side", [64, 128])
def test_a_vae_is_counted_exactly(changes: dict[str, Any], side: int) -> None:
    with torch.device("meta"):
        vae = AutoencoderKL(**(VAE | changes)).eval()
        pixels = torch.empty(1, vae.config.in_channels, side, side)
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        latents = torch.empty(1, vae.config.latent_channels, side // factor, side // factor)
    counts = counted(lambda: vae.encode(pixels)), counted(lambda: vae.decode(latents))
    assert vae_flops(dict(vae.config), side) == counts


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "projection_dim": 768},
        {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20},
    ],
)
def test_a_clip_is_counted_exactly(settings: dict[str, int]) -> None:
    with torch.device("meta"):
        encoder = CLIPTextModelWithProjection(CLIPTextConfig(**settings)).eval()
        ids = torch.zeros(1, 77, dtype=torch.long)
    assert clip_flops(settings, 77) == counted(lambda: encoder(ids))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"d_model": 64, "d_kv": 8, "num_heads": 4, "d_ff": 100, "feed_forward_proj": "gated-gelu"},
        {
            "d_model": 4096,
            "num_heads": 64,
            "d_ff": 10240,
            "num_layers": 24,
            "feed_forward_proj": "gated-gelu",
        },
    ],
)
@pytest.mark.parametrize("tokens", [77, 256])
def test_a_t5_is_counted_exactly(settings: dict[str, Any], tokens: int) -> None:
    with torch.device("meta"):
        encoder = T5EncoderModel(T5Config(**settings)).eval()
        ids = torch.zeros(1, tokens, dtype=torch.long)
    assert t5_flops(settings, tokens) == counted(lambda: encoder(ids))
