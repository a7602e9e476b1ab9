"""A head learns its prompt's meaning from generated prompts, and is kept as JSON."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corrector.prompts.variations.prompt_parsing import read
from serving.router.embedding import Embedder
from serving.router.prompt_classifier import Head, RegisteredTexts, train_head
from serving.router.word_comparison import closest
from serving.settings import HeadSettings

TEXTS = RegisteredTexts(
    "a person lying on the grass", ("a person lying on the lawn",), ("a person sitting on the grass",)
)


@pytest.fixture(scope="module")
def head(embedder: Embedder) -> Head:
    return train_head(TEXTS, ["a robot jumping on the snow"], embedder, HeadSettings())


def accepts(head: Head, embedder: Embedder, prompt: str) -> bool:
    """Whether the head takes the prompt."""
    assert head.calibration is not None
    logit = float(embedder.embed([prompt])[0] @ head.weights) + head.bias
    comparison = closest([read(text) for text in TEXTS.same], read(prompt))
    return logit + head.penalty(comparison) >= head.calibration.threshold


def test_its_threshold_reaches_the_precision_that_was_asked_for(head: Head) -> None:
    assert head.calibration is not None
    assert head.calibration.bound >= HeadSettings().min_precision
    assert head.calibration.accepted >= 125


@pytest.mark.parametrize(
    "prompt", ["a woman reclining in a meadow", "photo of someone stretched out on the grass"]
)
def test_it_takes_paraphrases(head: Head, embedder: Embedder, prompt: str) -> None:
    assert accepts(head, embedder, prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "a person standing on the grass",
        "a person not lying on the grass",
        "grass lying on a person",
        "a dog lying on the grass",
        "a person lying on the beach",
        # The lexicon has none of these verbs: this is the embedding's part.
        "a person mowing the grass",
        "a person meditating on the grass",
        "a person levitating on the grass",
    ],
)
def test_it_refuses_near_misses(head: Head, embedder: Embedder, prompt: str) -> None:
    assert not accepts(head, embedder, prompt)


def test_the_embedding_alone_tells_the_poses_apart(head: Head, embedder: Embedder) -> None:
    lying, standing = embedder.embed(["a man lying on the lawn", "a man standing on the lawn"]) @ head.weights
    assert lying > standing + 1.0


def test_training_is_deterministic(head: Head, embedder: Embedder) -> None:
    again = train_head(TEXTS, ["a robot jumping on the snow"], embedder, HeadSettings())
    assert (again.weights == head.weights).all()
    assert (again.bias, again.doubts, again.calibration) == (head.bias, head.doubts, head.calibration)


def test_a_precision_out_of_reach_gives_no_threshold(embedder: Embedder) -> None:
    # 240 calibration paraphrases without an error reach 0.984.
    assert train_head(TEXTS, [], embedder, HeadSettings(min_precision=0.99)).calibration is None


def test_it_is_read_back_as_it_was_written(head: Head, tmp_path: Path) -> None:
    path = tmp_path / "head.json"
    head.write(path)
    again = Head.load(path)
    assert (again.weights == head.weights).all()
    assert again.weights.dtype == np.float32
    assert (again.bias, again.doubts, again.calibration) == (head.bias, head.doubts, head.calibration)
    assert [path.name for path in tmp_path.iterdir()] == ["head.json"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weights": [NaN], "bias": 0, "doubts": [], "calibration": null}']
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "head.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"head|Expecting"):
        Head.load(path)


def test_a_digest_tells_texts_and_settings_apart() -> None:
    settings = HeadSettings()
    digests = {
        TEXTS.digest(settings),
        replace(TEXTS, paraphrases=()).digest(settings),
        replace(TEXTS, guard_prompts=()).digest(settings),
        TEXTS.digest(HeadSettings(ridge=0.1)),
    }
    assert len(digests) == 4
    assert RegisteredTexts(*vars(TEXTS).values()).digest(settings) in digests


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="min_precision"):
        HeadSettings(min_precision=1.0)
