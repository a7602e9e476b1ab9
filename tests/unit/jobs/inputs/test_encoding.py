"""The batch is encoded once, in shares, and what a lane asks for is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from corrector.base import ContentCache, resolve_base
from corrector.errors import UserError
from corrector.evaluation import Comparison
from corrector.loaded_base import Base
from corrector.prompt_inputs import exemplar_posterior, texts_of
from corrector.prompts import EvaluationSettings, FailingPrompt
from jobs.inputs.encoding import TEXTS_PER_SHARE, encode, split
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import PromptFolder

EVALUATION = EvaluationSettings(images=4, guard_images=2)


def item(number: int, *, guards: int = 1, flip: bool = False) -> PromptTask:
    """A prompt with guard prompts of its own, and one that all share."""
    entry = FailingPrompt.model_validate(
        {
            "name": f"prompt-{number}",
            "prompt": f"person {number} lying on the grass",
            "exemplars": "exemplars",
            "guard_prompts": ["a dog on the grass", *(f"guard {number} {each}" for each in range(guards))],
            "hyperparameters": {"horizontal_flip": flip},
        }
    )
    return PromptTask(f"work-{number}", entry, f"exemplars-{number}", PromptFolder(Path("folder")))


def test_shares_hold_every_text_and_every_prompt_once() -> None:
    items = [item(number, guards=20) for number in range(10)]
    shares = split(items, EVALUATION, 4)
    assert 1 < len(shares) <= 4
    texts = [text for share in shares for text in share.texts]
    assert sorted(texts) == sorted({text for each in items for text in texts_of(each.entry, EVALUATION)})
    assert sorted(each.work_id for share in shares for each in share.tasks) == sorted(
        each.work_id for each in items
    )
    sizes = [len(share.texts) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_the_texts_are_those_of_the_prompt_its_guards_and_its_hard_negatives() -> None:
    entry = item(0).entry
    drawn = {negative.prompt for negative in Comparison.of(entry, EVALUATION).negatives}
    assert drawn
    assert set(texts_of(entry, EVALUATION)) == {"", entry.prompt, *entry.guard_prompts, *drawn}


def test_few_texts_are_not_worth_loading_the_encoders_twice() -> None:
    items = [item(number) for number in range(4)]
    assert sum(len(texts_of(each.entry, EVALUATION)) for each in items) < TEXTS_PER_SHARE
    assert len(split(items, EVALUATION, 8)) == 1


def test_shares_leave_all_that_a_lane_asks_for_in_the_cache(tmp_path: Path, small_sd3: Path) -> None:
    base = shutil.copytree(small_sd3, tmp_path / "base")
    spec = resolve_base(str(base))
    items = [item(0, flip=True), item(1)]
    cache = ContentCache(tmp_path / "cache")
    for each in items:
        cache.put(
            each.exemplars, {"training": torch.rand(2, 3, 16, 16), "held_out": torch.rand(1, 3, 16, 16)}
        )
    for share in split(items, EVALUATION, 2):
        encode(spec, share, tmp_path / "cache", "cpu", 1)
    for part in ("text_encoder", "text_encoder_2", "text_encoder_3", "vae"):
        shutil.rmtree(base / part)
    lane = Base(spec, device="cpu", cache=cache)
    for each in items:
        assert set(lane.encode(texts_of(each.entry, EVALUATION))) == set(texts_of(each.entry, EVALUATION))
        assert len(exemplar_posterior(lane, each.load_exemplars(cache))) == 2
    assert len(exemplar_posterior(lane, items[0].load_exemplars(cache), mirrored=True)) == 2
    with pytest.raises(UserError):
        exemplar_posterior(lane, items[1].load_exemplars(cache), mirrored=True)
