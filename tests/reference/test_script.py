"""Running diffusers' script: what it needs, and that it leaves the process as it was."""

import logging
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corrector.errors import UserError
from tests.reference.pipelines import with_clip_length, write_pictures
from tests.reference.script import SCRIPT, ReferenceScript
from tests.support.small_sd3 import MAX_SEQUENCE_LENGTH, RESOLUTION

SETTINGS: dict[str, Any] = {
    "prompt": "a person lying on the grass",
    "rank": 4,
    "steps": 3,
    "batch_size": 2,
    "resolution": RESOLUTION,
    "learning_rate": 1e-3,
    "seed": 0,
    "max_sequence_length": MAX_SEQUENCE_LENGTH,
    "cpu": True,
}


@pytest.fixture(scope="module")
def script(reference_checkout: Path) -> ReferenceScript:
    return ReferenceScript(reference_checkout)


def numpy_state() -> list[int]:
    return np.random.get_state(legacy=False)["state"]["key"].tolist()


def test_a_folder_that_is_no_checkout_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}: no {SCRIPT} here; give a checkout"):
        ReferenceScript(tmp_path)


def test_a_script_for_another_diffusers_is_named(tmp_path: Path) -> None:
    path = tmp_path / SCRIPT
    path.parent.mkdir(parents=True)
    path.write_text("from diffusers import ComesLater\n")
    with pytest.raises(UserError, match=r"does not import with diffusers .*ComesLater"):
        ReferenceScript(tmp_path)


def test_a_script_that_asks_for_a_later_diffusers_is_run_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / SCRIPT
    path.parent.mkdir(parents=True)
    path.write_text("from diffusers.utils import check_min_version\ncheck_min_version('99.0.dev0')\n")
    with pytest.warns(UserWarning, match="asks for diffusers 99.0.dev0"):
        ReferenceScript(tmp_path)


def test_it_is_timed_and_leaves_the_process_as_it_was(
    script: ReferenceScript, small_sd3: Path, tmp_path: Path
) -> None:
    pipeline = with_clip_length(small_sd3, tmp_path / "pipeline")
    images = write_pictures(tmp_path / "images", 2)
    states = torch.get_rng_state(), random.getstate(), numpy_state()
    handlers, disabled = list(logging.getLogger().handlers), logging.root.manager.disable

    run = script.train(pipeline, images=images, output=tmp_path / "adapter", warm_up=1, **SETTINGS)

    assert len(run.step_seconds) == 2 and 0 < run.seconds_per_step < 60
    assert run.steps == [] and run.initial == {} and run.peak_bytes is None
    assert [file.name for file in run.adapter.iterdir()] == ["pytorch_lora_weights.safetensors"]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), numpy_state()) == states[1:]
    assert (logging.getLogger().handlers, logging.root.manager.disable) == (handlers, disabled)
    assert "torchvision" not in sys.modules


def test_what_would_not_be_a_fair_or_whole_run_is_refused(
    script: ReferenceScript, small_sd3: Path, tmp_path: Path
) -> None:
    images = write_pictures(tmp_path / "images", 3)
    with pytest.raises(ValueError, match="a multiple of 2 images"):
        script.train(small_sd3, images=images, output=tmp_path, **SETTINGS)
    settings = SETTINGS | {"batch_size": 1}
    with pytest.raises(ValueError, match="reads 16 tokens; the script pads to 77"):
        script.train(small_sd3, images=images, output=tmp_path, **settings)
    with pytest.raises(ValueError, match="leave none to time"):
        script.train(small_sd3, images=images, output=tmp_path, warm_up=3, **settings)
    with pytest.raises(ValueError, match="cached latents cannot be captured"):
        script.train(small_sd3, images=images, output=tmp_path, capture=True, cache_latents=True, **settings)
