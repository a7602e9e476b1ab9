"""A complete Stable Diffusion 3 pipeline folder with tiny random weights, for tests that need every
component.

The classes are those of the real thing; only the sizes differ. Everything is seeded, so the folder is the
same wherever it is built. ``python -m tests.support.small_sd3 FOLDER [sd3|sd35]`` writes one to look at.
"""

import json
import sys
from pathlib import Path
from typing import Literal

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

Variant = Literal["sd3", "sd35"]

RESOLUTION = 16
LATENT_CHANNELS = 4
LATENT_SIZE = 8
MAX_SEQUENCE_LENGTH = 12
CLIP_LENGTH = 16
WORDS = (
    "a",
    "person",
    "dog",
    "house",
    "tree",
    "lying",
    "sitting",
    "standing",
    "on",
    "the",
    "grass",
    "road",
    "red",
)

_CLIP_WIDTHS = (16, 12)
_T5_WIDTH = 32


def write_small_sd3(folder: Path, variant: Variant = "sd3", *, seed: int = 0) -> Path:
    """Writes the pipeline with ``save_pretrained``, and a ``base.json``, into ``folder``; returns
    ``folder``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip_tokenizer = _clip_tokenizer()
        pipeline = StableDiffusion3Pipeline(
            transformer=small_transformer(variant, seed=seed),
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
            vae=_vae(),
            text_encoder=_clip(_CLIP_WIDTHS[0], clip_tokenizer),
            tokenizer=clip_tokenizer,
            text_encoder_2=_clip(_CLIP_WIDTHS[1], clip_tokenizer),
            tokenizer_2=_clip_tokenizer(),
            text_encoder_3=_t5(),
            tokenizer_3=_t5_tokenizer(),
        )
    pipeline.save_pretrained(folder)
    settings = {
        "name": f"small-{variant}",
        "resolution": RESOLUTION,
        "max_sequence_length": MAX_SEQUENCE_LENGTH,
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
    }
    (folder / "base.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return folder


def small_transformer(variant: Variant = "sd3", *, seed: int = 0) -> SD3Transformer2DModel:
    """Three layers of width 32, frozen and in eval mode; "sd35" adds qk_norm and dual attention in its
    first two."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = SD3Transformer2DModel(
            sample_size=LATENT_SIZE,
            patch_size=2,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            num_layers=3,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=_T5_WIDTH,
            caption_projection_dim=32,
            pooled_projection_dim=sum(_CLIP_WIDTHS),
            pos_embed_max_size=LATENT_SIZE,
            qk_norm="rms_norm" if variant == "sd35" else None,
            dual_attention_layers=(0, 1) if variant == "sd35" else (),
        )
        # Larger than the default: a prediction that hardly depends on its inputs tests nothing.
        for name, parameter in transformer.named_parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            elif name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    return transformer.requires_grad_(False).eval()


def transformer_inputs(batch: int, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random keyword arguments for one forward of :func:`small_transformer`, every row with its own
    timestep."""
    generator = torch.Generator().manual_seed(seed)
    tokens = CLIP_LENGTH + MAX_SEQUENCE_LENGTH
    return {
        "hidden_states": torch.randn(batch, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=generator),
        "encoder_hidden_states": torch.randn(batch, tokens, _T5_WIDTH, generator=generator),
        "pooled_projections": torch.randn(batch, sum(_CLIP_WIDTHS), generator=generator),
        "timestep": torch.rand(batch, generator=generator) * 1000,
    }


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=RESOLUTION,
        scaling_factor=1.7,
        shift_factor=0.3,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def _clip(width: int, tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CLIP_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = CLIPTextModelWithProjection(config).eval()
    _amplify(model)
    return model


def _t5() -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(_t5_tokenizer()), d_model=_T5_WIDTH, d_kv=8, d_ff=48, num_layers=2, num_heads=4
    )
    model = T5EncoderModel(config).eval()
    _amplify(model)
    return model


def _amplify(model: torch.nn.Module) -> None:
    """Weights large enough for prompts to differ clearly."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.4)


def _clip_tokenizer() -> CLIPTokenizer:
    """Byte-level BPE in which every one of :data:`WORDS` is one token and any other text is spelled in
    bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [character + "</w>" for character in alphabet]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            merges.append(pair)
            pieces[:2] = ["".join(pair)]
            tokens.append(pieces[0])
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=list(dict.fromkeys(merges)), model_max_length=CLIP_LENGTH)


def _t5_tokenizer() -> T5Tokenizer:
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    words = [("▁" + word, -2.0) for word in WORDS]
    letters = [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    return T5Tokenizer(vocab=special + words + letters, extra_ids=0, model_max_length=512)


if __name__ == "__main__":
    write_small_sd3(Path(sys.argv[1]), "sd35" if sys.argv[2:] == ["sd35"] else "sd3")
