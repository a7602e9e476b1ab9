"""Small models written as Stability's single files are: the inverse of diffusers' conversion, for tests only."""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

Weights = dict[str, Tensor]

_ENDS = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}
_IN_BLOCK = {
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_FUSED = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
}


def original_transformer(transformer: SD3Transformer2DModel) -> Weights:
    """The weights of ``transformer`` under Stability's names."""
    weights = dict(transformer.state_dict())
    last = transformer.config.num_layers - 1
    original: Weights = {}
    for name, tensor in weights.items():
        if not name.startswith("transformer_blocks."):
            module, kind = (name, "") if name in _ENDS else name.rsplit(".", 1)
            key = _ENDS[module] + (f".{kind}" if kind else "")
            original[key] = _swapped(tensor) if module == "norm_out.linear" else tensor
            continue
        _, number, rest = name.split(".", 2)
        module, kind = rest.rsplit(".", 1)
        if module in _IN_BLOCK:
            final = module == "norm1_context.linear" and int(number) == last
            key = f"joint_blocks.{number}.{_IN_BLOCK[module]}.{kind}"
            original[key] = _swapped(tensor) if final else tensor
    for number in range(last + 1):
        for key, parts in _FUSED.items():
            for kind in ("weight", "bias"):
                names = [f"transformer_blocks.{number}.{part}.{kind}" for part in parts]
                if names[0] in weights:
                    fused = torch.cat([weights[name] for name in names])
                    original[f"joint_blocks.{number}.{key}.{kind}"] = fused
    return original


def original_vae(vae: AutoencoderKL) -> Weights:
    """The weights of ``vae`` under the names of latent diffusion."""
    levels = len(vae.config.block_out_channels)
    return {_vae_name(name, levels): _as_convolution(name, each) for name, each in vae.state_dict().items()}


def write_single_file(folder: Path, path: Path, *, vae: bool = False, prefix: bool = True) -> Path:
    """The transformer of the pipeline in ``folder`` as one file at ``path``, on request with its VAE."""
    transformer = SD3Transformer2DModel.from_pretrained(
        folder, subfolder="transformer", local_files_only=True
    )
    start = "model.diffusion_model." if prefix else ""
    weights = {start + name: tensor for name, tensor in original_transformer(transformer).items()}
    if vae:
        model = AutoencoderKL.from_pretrained(folder, subfolder="vae", local_files_only=True)
        weights |= {f"first_stage_model.{name}": tensor for name, tensor in original_vae(model).items()}
    return write(path, weights)


def write(path: Path, weights: Mapping[str, Tensor]) -> Path:
    """``weights`` as a safetensors file at ``path``."""
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    return path


def changed(path: Path, changes: Mapping[str, Tensor | None]) -> Path:
    """The file at ``path`` with some tensors replaced, or left out where None."""
    weights = load_file(path) | {name: tensor for name, tensor in changes.items() if tensor is not None}
    return write(
        path, {name: weights[name] for name in weights if changes.get(name, weights[name]) is not None}
    )


def _swapped(tensor: Tensor) -> Tensor:
    """Stability has the shift before the scale, diffusers the other way round."""
    scale, shift = tensor.chunk(2)
    return torch.cat([shift, scale])


def _vae_name(name: str, levels: int) -> str:
    side, rest = name.split(".", 1)
    for new, old in (
        ("mid_block.resnets.0", "mid.block_1"),
        ("mid_block.resnets.1", "mid.block_2"),
        ("mid_block.attentions.0", "mid.attn_1"),
        ("conv_norm_out", "norm_out"),
        ("conv_shortcut", "nin_shortcut"),
        ("group_norm", "norm"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("to_out.0", "proj_out"),
        ("downsamplers.0", "downsample"),
        ("upsamplers.0", "upsample"),
        ("resnets", "block"),
    ):
        rest = rest.replace(new, old)
    if rest.startswith("up_blocks."):
        _, level, rest = rest.split(".", 2)
        rest = f"up.{levels - 1 - int(level)}.{rest}"
    return f"{side}.{rest.replace('down_blocks', 'down')}"


def _as_convolution(name: str, tensor: Tensor) -> Tensor:
    """Attention in latent diffusion's VAE is made of 1 x 1 convolutions."""
    return tensor[:, :, None, None] if "attentions" in name and tensor.ndim == 2 else tensor
