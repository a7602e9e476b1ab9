"""A survey's folder: images without metadata under names that tell nothing, checks that can be told, and mistakes."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corrector.errors import UserError
from corrector.preference.links import SECRET_FILE
from corrector.preference.making import ImagePair, SurveyPlan, make_survey, pairs_of_versions
from corrector.preference.survey import Arm, Survey
from corrector.preference.survey_folder import SURVEY_FILE, read_survey
from tests.support.pictures import drawn
from tests.support.surveys import image_pairs, small_survey


def plan(seed: int = 0, *, pairs: int = 40, checks: int = 4) -> SurveyPlan:
    arms: dict[Arm, str] = {"a": "base", "b": "corrected"}
    return SurveyPlan("s", "Which?", arms, seed, pairs=pairs, checks=checks)


def pixels(folder: Path, name: str) -> np.ndarray:
    with Image.open(folder / "images" / f"{name}.png") as image:
        return np.asarray(image)


def test_images_have_the_pixels_and_nothing_else_of_their_files(tmp_path: Path) -> None:
    survey = small_survey(tmp_path, pairs=4, checks=1)
    folder = tmp_path / "survey"
    assert read_survey(folder) == survey
    counting = [pair for pair in survey.pairs if pair.expected is None]
    assert len(counting) == 4
    for pair in counting:
        assert pair.seed is not None
        expected = np.asarray(drawn(512, 512, number=pair.seed))
        assert (pixels(folder, pair.b) == expected).all() and (pixels(folder, pair.a) == expected // 2).all()
    for file in (folder / "images").iterdir():
        content = file.read_bytes()
        assert not any(
            word in content for word in (b"tEXt", b"iTXt", b"eXIf", b"tIME", b"base", b"corrected")
        )
    assert stat.S_IMODE((folder / SECRET_FILE).stat().st_mode) == 0o600
    assert "base" not in "".join(file.name for file in (folder / "images").iterdir())


def test_a_check_shows_an_image_beside_its_own_patches_in_another_order(tmp_path: Path) -> None:
    survey = small_survey(tmp_path, pairs=2, checks=6)
    checks = [pair for pair in survey.pairs if pair.expected is not None]
    assert len(checks) == 6 and {pair.expected for pair in checks} == {"a", "b"}
    for pair in checks:
        a, b = pixels(tmp_path / "survey", pair.a), pixels(tmp_path / "survey", pair.b)
        packed = [np.sort(image.astype(int).reshape(-1, 3) @ (1, 256, 65536)) for image in (a, b)]
        assert (packed[0] == packed[1]).all()
        right, destroyed = (a, b) if pair.expected == "a" else (b, a)
        # Neighbouring rows of the drawn pictures are alike, those of shuffled patches less so.
        steps = [np.abs(np.diff(image.astype(int), axis=0)).mean() for image in (right, destroyed)]
        assert steps[1] > 1.5 * steps[0]


def test_a_check_shows_an_exemplar_where_there_is_one(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        drawn(64, 64, number).save(file)
    pair = ImagePair("p", 1, files[0], files[1], exemplars=(files[2],))
    survey = make_survey([pair], tmp_path / "survey", plan(checks=3))
    for check in survey.pairs[1:]:
        whole = pixels(tmp_path / "survey", check.a if check.expected == "a" else check.b)
        assert (whole == np.asarray(drawn(64, 64, 2))).all()


def test_images_of_different_sizes_are_shown_in_one(tmp_path: Path) -> None:
    for name, side in (("a", 64), ("b", 96)):
        drawn(side, side).save(tmp_path / f"{name}.png")
    pair = ImagePair("p", 1, tmp_path / "a.png", tmp_path / "b.png")
    survey = make_survey([pair], tmp_path / "survey", plan(checks=0))
    (made,) = survey.pairs
    shapes = {pixels(tmp_path / "survey", name).shape for name in (made.a, made.b)}
    assert shapes == {(64, 64, 3)}


def test_pairs_are_drawn_evenly_from_the_prompts(tmp_path: Path) -> None:
    many, few = image_pairs(tmp_path / "many", 6, "many"), image_pairs(tmp_path / "few", 2, "few")
    survey = make_survey([*many, *few], tmp_path / "survey", plan(pairs=5, checks=0))
    prompts = [pair.prompt for pair in survey.pairs]
    assert (prompts.count("many"), prompts.count("few")) == (3, 2)
    again = make_survey([*many, *few], tmp_path / "again", plan(pairs=5, checks=0))
    assert [pair.seed for pair in again.pairs] == [pair.seed for pair in survey.pairs]


def test_versions_are_compared_where_prompt_and_seed_are_the_same() -> None:
    def pair(prompt: str, seed: int, name: str) -> ImagePair:
        return ImagePair(prompt, seed, Path("base"), Path(name))

    old = [pair("p", 1, "old-1"), pair("p", 2, "old-2"), pair("q", 1, "old-q")]
    new = [pair("p", 2, "new-2"), pair("p", 3, "new-3"), pair("q", 1, "new-q")]
    assert pairs_of_versions(old, new) == [
        ImagePair("p", 2, Path("old-2"), Path("new-2")),
        ImagePair("q", 1, Path("old-q"), Path("new-q")),
    ]


def test_mistakes_are_named_and_leave_nothing(tmp_path: Path) -> None:
    pairs = image_pairs(tmp_path / "images", 1)
    with pytest.raises(UserError, match="no pairs to show"):
        make_survey([], tmp_path / "survey", plan())
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(UserError, match="taken: is there already"):
        make_survey(pairs, tmp_path / "taken", plan())
    pairs[0].b.write_bytes(b"half")
    with pytest.raises(UserError, match=r"0-corrected\.png: cannot be read as an image"):
        make_survey(pairs, tmp_path / "survey", plan())
    assert {path.name for path in tmp_path.iterdir()} == {"images", "taken"}
    with pytest.raises(UserError, match=r"no survey\.json"):
        read_survey(tmp_path / "taken")
    (tmp_path / "taken" / SURVEY_FILE).write_text("{}")
    with pytest.raises(UserError, match="is no survey"):
        read_survey(tmp_path / "taken")


def test_a_definition_in_json_is_the_definition(tmp_path: Path) -> None:
    survey = small_survey(tmp_path, title='<script>alert("1")</script>', prompt="\x1b[31m</p>&\u202e")
    assert Survey.model_validate_json(survey.model_dump_json()) == survey
