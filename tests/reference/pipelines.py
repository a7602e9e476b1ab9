"""Small pipelines and pictures on which the script runs anywhere."""

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from tests.reference.script import CLIP_TOKENS
from tests.support.small_sd3 import RESOLUTION


def with_clip_length(pipeline_folder: Path, into: Path, tokens: int = CLIP_TOKENS) -> Path:
    """A copy of the pipeline whose CLIPs read ``tokens`` tokens, as the script insists; returns ``into``.

    Positions beyond a CLIP's own repeat its last. Attention is causal, so what it makes of its own positions stays.
    """
    shutil.copytree(pipeline_folder, into, dirs_exist_ok=True)
    for number in ("", "_2"):
        encoder = into / f"text_encoder{number}"
        model = CLIPTextModelWithProjection.from_pretrained(
            encoder, local_files_only=True, torch_dtype=torch.float32
        )
        weights = model.state_dict()
        (key,) = [key for key in weights if key.endswith("position_embedding.weight")]
        own = weights[key]
        weights[key] = torch.cat([own, own[-1:].expand(max(0, tokens - len(own)), -1)])
        model.config.max_position_embeddings = tokens
        longer = CLIPTextModelWithProjection(model.config)
        longer.load_state_dict(weights)
        longer.save_pretrained(encoder)
        tokenizer = CLIPTokenizer.from_pretrained(into / f"tokenizer{number}", local_files_only=True)
        tokenizer.model_max_length = tokens
        tokenizer.save_pretrained(into / f"tokenizer{number}")
    return into


def write_pictures(folder: Path, count: int, *, seed: int = 0, resolution: int = RESOLUTION) -> Path:
    """``count`` seeded pictures of ``resolution`` pixels a side, smooth rather than noise; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((resolution, resolution), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder
