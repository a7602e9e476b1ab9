"""LoRA files of the small transformer as kohya's sd-scripts save them: their keys are names of Stability's release."""

import torch
from torch import Tensor

from tests.support.small_sd3 import Variant

WIDTH, LAYERS = 32, 3
BLOCK_NAMES = {
    "context_block.adaLN_modulation.1": (6 * WIDTH, WIDTH),
    "context_block.attn.qkv": (3 * WIDTH, WIDTH),
    "context_block.attn.proj": (WIDTH, WIDTH),
    "context_block.mlp.fc1": (4 * WIDTH, WIDTH),
    "context_block.mlp.fc2": (WIDTH, 4 * WIDTH),
    "x_block.adaLN_modulation.1": (6 * WIDTH, WIDTH),
    "x_block.attn.qkv": (3 * WIDTH, WIDTH),
    "x_block.attn.proj": (WIDTH, WIDTH),
    "x_block.mlp.fc1": (4 * WIDTH, WIDTH),
    "x_block.mlp.fc2": (WIDTH, 4 * WIDTH),
}
"""Linears of a block in Stability's release, with the shapes that the small transformer's have."""
LAST_BLOCK_NAMES = {
    **{name: shape for name, shape in BLOCK_NAMES.items() if name.startswith("x_block")},
    "context_block.adaLN_modulation.1": (2 * WIDTH, WIDTH),
    "context_block.attn.qkv": (3 * WIDTH, WIDTH),
}
DUAL_BLOCK_NAMES = {
    **BLOCK_NAMES,
    "x_block.adaLN_modulation.1": (9 * WIDTH, WIDTH),
    "x_block.attn2.qkv": (3 * WIDTH, WIDTH),
    "x_block.attn2.proj": (WIDTH, WIDTH),
}
OTHER_NAMES = {
    "t_embedder.mlp.0": (WIDTH, 256),
    "t_embedder.mlp.2": (WIDTH, WIDTH),
    "y_embedder.mlp.0": (WIDTH, 28),
    "y_embedder.mlp.2": (WIDTH, WIDTH),
    "context_embedder": (WIDTH, 32),
    "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH),
    "final_layer.linear": (16, WIDTH),
}


def original_linears(variant: Variant) -> dict[str, tuple[int, int]]:
    """Sizes `(out, in)` of the small transformer's linears by their names in Stability's release."""
    linears = dict(OTHER_NAMES)
    for block in range(LAYERS):
        inner = DUAL_BLOCK_NAMES if variant == "sd35" and block < 2 else BLOCK_NAMES
        for name, shape in (LAST_BLOCK_NAMES if block == LAYERS - 1 else inner).items():
            linears[f"joint_blocks.{block}.{name}"] = shape
    return linears


def trained_by_kohya(
    *, variant: Variant = "sd3", rank: int = 6, alpha: float = 3.0, split_qkv: bool = False
) -> dict[str, Tensor]:
    """What ``networks.lora_sd3`` saves: every Linear of the blocks, q, k and v with one A unless ``split_qkv``."""
    generator = torch.Generator().manual_seed(7)
    lora = {}
    for name, (outputs, inputs) in original_linears(variant).items():
        if not name.startswith("joint_blocks"):
            continue
        key = "lora_unet_" + name.replace(".", "_")
        blocks = 3 if split_qkv and name.endswith("qkv") else 1
        ups = [torch.randn(outputs // blocks, rank, generator=generator) * 0.3 for _ in range(blocks)]
        lora[f"{key}.lora_down.weight"] = (
            torch.randn(blocks * rank, inputs, generator=generator) * inputs**-0.5
        )
        lora[f"{key}.lora_up.weight"] = torch.block_diag(*ups)
        lora[f"{key}.alpha"] = torch.tensor(alpha)
    return lora
