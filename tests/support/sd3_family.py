"""The Stable Diffusion 3 family by its published configurations, with random weights, at any depth.

Speed, memory and the shape of a checkpoint do not depend on what the weights are, so nothing has to be downloaded to measure
them. ``layers`` below the published number keeps every width, and keeps both kinds of block where the model has two.
"""

from typing import Any, Literal, get_args

import torch
from diffusers import SD3Transformer2DModel

Model = Literal["sd3-medium", "sd3.5-medium", "sd3.5-large"]
MODELS: tuple[Model, ...] = get_args(Model)

_COMMON: dict[str, Any] = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
}
_DUAL_ATTENTION_LAYERS = 13

VAE_SCALE_FACTOR = 8
TOKENS = 77 + 256


def configuration(model: Model, *, layers: int | None = None) -> dict[str, Any]:
    """The transformer's configuration, as on the hub's ``transformer/config.json``; ``layers`` None: all of them."""
    if model == "sd3-medium":
        own: dict[str, Any] = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
        own |= {"pos_embed_max_size": 192}
    elif model == "sd3.5-medium":
        own = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
        own |= {"pos_embed_max_size": 384, "qk_norm": "rms_norm"}
        own |= {"dual_attention_layers": tuple(range(_DUAL_ATTENTION_LAYERS))}
    else:
        own = {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432}
        own |= {"pos_embed_max_size": 192, "qk_norm": "rms_norm"}
    if layers is not None:
        own["num_layers"] = layers
        if "dual_attention_layers" in own:
            own["dual_attention_layers"] = tuple(range(min(_DUAL_ATTENTION_LAYERS, max(1, layers // 2))))
    return _COMMON | own


def random_transformer(
    model: Model,
    *,
    layers: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> SD3Transformer2DModel:
    """A frozen transformer of ``model`` with seeded random weights, large enough that its output depends on its inputs."""
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        transformer = SD3Transformer2DModel(**configuration(model, layers=layers))
        for name, parameter in transformer.named_parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            elif name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.02)
        for tensor in (*transformer.parameters(), *transformer.buffers()):
            tensor.data = tensor.data.to(dtype)
    return transformer.requires_grad_(False).eval()
