"""The embedded base: it loads in plain diffusers, is small, and follows the prompts that it should follow."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusion3Pipeline

from tests.oracle import Oracle
from tests.oracle.report import load, sample
from tests.support.paths import PROJECT
from tests.world.pictures import held_out
from tests.world.scenes import Scene, canonical_prompt

FOLDER = PROJECT / "corrector/base/embedded/weights"


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusion3Pipeline:
    return load(FOLDER)


def test_the_folder_is_complete_and_small() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 24_000_000
    index = json.loads((FOLDER / "model_index.json").read_text())
    parts = {"transformer", "vae", "scheduler", "text_encoder", "text_encoder_2", "text_encoder_3"}
    assert parts <= set(index)
    assert all(index[part][0] for part in parts)
    settings = json.loads((FOLDER / "base.json").read_text())
    assert settings["resolution"] == 64
    assert settings["max_sequence_length"] == 16


def test_the_autoencoder_keeps_held_out_pictures_above_33_db() -> None:
    vae = AutoencoderKL.from_pretrained(FOLDER / "vae", torch_dtype=torch.float32)
    pictures = held_out(32)
    with torch.no_grad():
        decoded = vae.decode(vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)
    assert 10 * torch.log10(4 / (decoded - pictures).square().mean()) > 33


def test_the_same_generator_gives_the_same_image(pipeline: StableDiffusion3Pipeline) -> None:
    one, two = (sample(pipeline, "a dog on the grass", range(1), steps=4) for _ in range(2))
    assert torch.equal(one, two)


def test_prompts_outside_the_broken_set_come_out_right(pipeline: StableDiffusion3Pipeline) -> None:
    oracle = Oracle.load()
    asked = [
        Scene("person", "standing", "grass"),
        Scene("dog", "running", "beach"),
        Scene("robot", "sitting", "street"),
        Scene("house", "", "snow"),
    ]
    rates = [oracle.right_rate(sample(pipeline, canonical_prompt(scene), range(2)), scene) for scene in asked]
    assert sum(rates) / len(rates) >= 0.75


def test_broken_prompts_come_out_wrong(pipeline: StableDiffusion3Pipeline) -> None:
    oracle = Oracle.load()
    asked = [Scene("person", "lying", "grass"), Scene("cat", "running", "snow")]
    rates = [oracle.right_rate(sample(pipeline, canonical_prompt(scene), range(2)), scene) for scene in asked]
    assert sum(rates) / len(rates) <= 0.25
