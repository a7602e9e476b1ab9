"""diffusers' training script on the same work: a pipeline folder for it, images, and the run."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from corrector.prompts import HyperParameters
from tests.benchmarks.subject import EXEMPLARS, Subject
from tests.reference.script import SCRIPT, ReferenceRun, ReferenceScript
from tests.support.small_sd3 import write_small_sd3

PROMPT = "a person lying on the grass"


@dataclass(frozen=True)
class Reference:
    """The script, with everything on disk that it reads."""

    subject: Subject
    resolution: int
    script: ReferenceScript
    folder: Path

    def train(self, settings: HyperParameters, *, steps: int, checkpointing: bool = False) -> ReferenceRun:
        """One fine-tune, for ``steps`` steps; its output stays in ``folder``."""
        mixed = {torch.bfloat16: "bf16", torch.float32: "no"}[self.subject.dtype]
        return self.script.train(
            self.folder / "pipeline",
            images=write_images(
                self.folder / f"images-{settings.batch_size}", _whole_batches(settings), self.resolution
            ),
            prompt=PROMPT,
            output=Path(tempfile.mkdtemp(dir=self.folder)),
            rank=settings.rank,
            steps=steps,
            batch_size=settings.batch_size,
            resolution=self.resolution,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
            mixed_precision=mixed,
            max_sequence_length=self.subject.text_lengths[1],
            cpu=self.subject.device.type == "cpu",
            gradient_checkpointing=checkpointing,
            checkpointing_steps=10 * steps,
        )


@contextmanager
def reference(subject: Subject, resolution: int, checkout: Path) -> Iterator[Reference]:
    """The script of ``checkout`` with a pipeline of ``subject`` in a folder that is gone afterwards."""
    script = ReferenceScript(checkout)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pipeline(subject, folder / "pipeline", resolution)
        yield Reference(subject, resolution, script, folder)


def script_version(checkout: Path) -> str:
    """First digits of the script's SHA-256."""
    return hashlib.sha256((checkout / SCRIPT).read_bytes()).hexdigest()[:12]


def write_pipeline(subject: Subject, folder: Path, resolution: int) -> Path:
    """A complete pipeline folder with ``subject``'s transformer, and beside it a VAE and text encoders of the right
    shapes at the smallest sizes; returns ``folder``."""
    write_small_sd3(folder)
    config, factor = subject.config, subject.vae_scale_factor
    clip, t5 = subject.text_lengths
    pooled = config["pooled_projection_dim"]
    widths = (768, 1280) if pooled == 2048 else (pooled // 2, pooled - pooled // 2)
    for number, width in zip(("", "_2"), widths, strict=True):
        tokenizer = CLIPTokenizer.from_pretrained(folder / f"tokenizer{number}", model_max_length=clip)
        tokenizer.save_pretrained(folder / f"tokenizer{number}")
        _clip(width, tokenizer, clip).save_pretrained(folder / f"text_encoder{number}")
    words = len(T5TokenizerFast.from_pretrained(folder / "tokenizer_3"))
    encoder = T5Config(
        vocab_size=words, d_model=config["joint_attention_dim"], d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    T5EncoderModel(encoder).save_pretrained(folder / "text_encoder_3")
    _vae(config["in_channels"], factor).save_pretrained(folder / "vae")
    subject.transformer().save_pretrained(folder / "transformer")
    settings = {"name": subject.model, "resolution": resolution, "max_sequence_length": t5}
    (folder / "base.json").write_text(json.dumps(settings))
    return folder


def write_images(folder: Path, count: int, resolution: int) -> Path:
    """``count`` square pictures of noise, unless they are there already; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number}.png"
        if not path.exists():
            Image.fromarray(generator.integers(0, 256, (resolution, resolution, 3), dtype=np.uint8)).save(
                path
            )
    return folder


def _whole_batches(settings: HyperParameters) -> int:
    """About :data:`EXEMPLARS` images, a multiple of the batch size, so that no batch is cut short."""
    return -(-EXEMPLARS // settings.batch_size) * settings.batch_size


def _clip(width: int, tokenizer: Any, length: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=width,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _vae(channels: int, factor: int) -> AutoencoderKL:
    levels = factor.bit_length()
    return AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
