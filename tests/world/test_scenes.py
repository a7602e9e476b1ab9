"""The procedural world: its pictures are deterministic, its captions stay within the vocabulary."""

from random import Random

import numpy as np
import pytest

from tests.world.figures import COLOURS
from tests.world.pipeline import SEQUENCE_LENGTH, clip_tokenizer, t5_tokenizer
from tests.world.scenes import (
    BROKEN,
    POSES,
    SUBJECTS,
    Scene,
    canonical_prompt,
    caption,
    paraphrases,
    render,
    scenes,
    shown_colour,
    vocabulary,
)


@pytest.mark.parametrize("broken", [False, True])
def test_the_same_seed_gives_the_same_bytes(broken: bool) -> None:
    for scene in scenes():
        first, second = (render(scene, 7, broken=broken).tobytes() for _ in range(2))
        assert first == second


def test_another_seed_gives_another_picture() -> None:
    for scene in scenes():
        assert render(scene, 7).tobytes() != render(scene, 8).tobytes()


@pytest.mark.parametrize("size", [32, 64, 128, 100])
def test_pictures_have_the_asked_size(size: int) -> None:
    image = render(Scene("person", "sitting", "beach"), 0, size)
    assert image.size == (size, size)
    assert image.mode == "RGB"


def test_a_broken_picture_differs_from_the_right_one_in_the_figure_alone() -> None:
    for scene in (scene for scene in scenes() if scene.broken):
        right, wrong = (np.asarray(render(scene, 3, broken=broken), int) for broken in (False, True))
        changed = np.abs(right - wrong).max(axis=2) > 40
        assert 0.03 < changed.mean() < 0.6
        assert not changed[:4].all(axis=1).any()


def test_the_shirt_has_the_named_colour() -> None:
    for name, colour in COLOURS.items():
        pixels = np.asarray(render(Scene("person", "standing", "street", name), 1), int)
        assert (np.abs(pixels - colour).max(axis=2) < 12).sum() > 60


def test_a_colour_left_open_is_the_one_that_shown_colour_names() -> None:
    for seed in range(8):
        scene = Scene("car", "", "snow")
        named = Scene("car", "", "snow", shown_colour(scene, seed))
        assert render(scene, seed).tobytes() == render(named, seed).tobytes()


def test_every_subject_with_poses_is_broken_somewhere_and_right_elsewhere_in_that_pose() -> None:
    assert len(BROKEN) >= 12
    assert {subject for subject, _, _ in BROKEN} == set(POSES)
    for subject, pose, _ in BROKEN:
        places = {scene.broken for scene in scenes() if (scene.subject, scene.pose) == (subject, pose)}
        assert places == {True, False}


def test_captions_use_only_words_of_the_vocabulary_and_name_the_plain_prompt_half_the_time() -> None:
    known, rng = set(vocabulary()), Random(0)
    plain = total = 0
    for scene in scenes() * 20:
        text = caption(scene, rng, shown_colour(scene, total))
        assert set(text.split()) <= known
        total += 1
        plain += "shirt" not in text and text == canonical_prompt(scene)
    assert 0.35 < plain / total < 0.65


def test_paraphrases_are_at_least_four_distinct_other_wordings() -> None:
    for scene in scenes():
        texts = paraphrases(scene)
        assert len(set(texts)) == len(texts) >= 4
        assert canonical_prompt(scene) not in texts


def test_canonical_prompts_read_as_english() -> None:
    assert canonical_prompt(Scene("person", "lying", "grass")) == "a person lying on the grass"
    assert (
        canonical_prompt(Scene("person", "lying", "grass", "red"))
        == "a person in a red shirt lying on the grass"
    )
    assert canonical_prompt(Scene("car", "", "street", "blue")) == "a blue car on the street"
    assert len({canonical_prompt(scene) for scene in scenes()}) == len(scenes())


def test_every_word_is_one_token_and_every_caption_fits() -> None:
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    for word in vocabulary():
        assert len(clip(word).input_ids) == 3
        assert len(t5(word).input_ids) == 2
    rng = Random(1)
    for scene in scenes():
        for text in (
            caption(scene, rng, "purple" if scene.subject in ("person", "car") else None),
            *paraphrases(scene),
        ):
            assert len(clip(text).input_ids) <= SEQUENCE_LENGTH


@pytest.mark.parametrize(
    "arguments",
    [
        ("horse", "standing", "grass"),
        ("dog", "jumping", "grass"),
        ("tree", "standing", "grass"),
        ("dog", "lying", "moon"),
        ("dog", "lying", "snow", "red"),
        ("person", "lying", "snow", "green"),
    ],
)
def test_an_impossible_scene_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Scene(*arguments)


def test_scenes_cover_every_subject() -> None:
    assert {scene.subject for scene in scenes()} == set(SUBJECTS)
