"""Detectors that run here: ONNX files, installed judges, the distance to exemplars; and the choice among them."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import torch

from corrector.base import ContentCache
from corrector.detectors import choice, choose_detectors
from corrector.detectors.exemplar_distance import MIN_EXEMPLARS, ExemplarDistance
from corrector.detectors.local import OnnxScore
from corrector.errors import UserError
from corrector.evaluation import FeatureMemory
from corrector.evaluation.verdicts import JUDGES
from tests.support.scenes import FAILING, pictures
from tests.unit.corrector.evaluation.compared import Colours
from tests.world.scenes import Scene, canonical_prompt

PROMPT = canonical_prompt(FAILING)
EXEMPLARS = pictures(FAILING, range(16, 40))


def memory() -> FeatureMemory:
    return FeatureMemory([Colours()])


def mean_model(path: Path, *axes: int) -> Path:
    """An ONNX model whose output is the images' mean over `axes`, written as protobuf (onnx.proto3 has the fields)."""

    def number(field: int, value: int) -> bytes:
        return bytes([*varint(field << 3), value])

    def part(field: int, *content: bytes) -> bytes:
        whole = b"".join(content)
        return bytes([*varint(field << 3 | 2), *varint(len(whole))]) + whole

    def varint(value: int) -> list[int]:
        return [value] if value < 128 else [value & 127 | 128, *varint(value >> 7)]

    def tensor(name: bytes, dimensions: int) -> bytes:
        shape = part(2, *(part(1, part(2, b"d%d" % each)) for each in range(dimensions)))
        return part(1, name) + part(2, part(1, number(1, 1), shape))

    reduced = part(5, part(1, b"axes"), *(number(8, axis) for axis in axes), number(20, 7))
    dropped = part(5, part(1, b"keepdims"), number(3, 0), number(20, 2))
    node = part(1, part(1, b"images"), part(2, b"scores"), part(4, b"ReduceMean"), reduced, dropped)
    graph = part(
        7, node, part(2, b"mean"), part(11, tensor(b"images", 4)), part(12, tensor(b"scores", 4 - len(axes)))
    )
    path.write_bytes(number(1, 8) + graph + part(8, number(2, 13)))
    return path


def test_an_onnx_file_scores_images_against_its_threshold(tmp_path: Path) -> None:
    detector = OnnxScore(f"{mean_model(tmp_path / 'bright.onnx', 1, 2, 3)}@0.5")
    images = torch.stack([torch.full((3, 4, 4), value) for value in (0.25, 0.75, float("nan"))])

    found = detector.judge(images, ["a"] * 3)

    assert [(each.is_right, each.score) for each in found] == [(False, 0.25), (True, 0.75), (None, None)]
    assert detector.name == "onnx:bright.onnx@0.5"


def test_what_is_no_detector_in_onnx_is_refused(tmp_path: Path) -> None:
    path = mean_model(tmp_path / "rows.onnx", 1, 2)
    with pytest.raises(UserError, match=r"expected onnx:FILE@THRESHOLD"):
        OnnxScore(str(path))
    with pytest.raises(UserError, match="expected 2 scores, one an image, found 8"):
        OnnxScore(f"{path}@0").judge(torch.zeros(2, 3, 4, 4), ["a"] * 2)
    with pytest.raises(UserError, match=r"onnx:rows.onnx@0: fails on images \(2, 3, 4\): "):
        OnnxScore(f"{path}@0").judge(torch.zeros(2, 3, 4), ["a"] * 2)
    (tmp_path / "text.onnx").write_text("no")
    for name, why in (("text.onnx", "is no ONNX model"), ("missing.onnx", "cannot be read: No such file")):
        with pytest.raises(UserError, match=f"{name}: {why}"):
            OnnxScore(f"{tmp_path / name}@0")


def test_images_farther_from_the_exemplars_than_they_from_each_other_are_suspect(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path)
    detector = ExemplarDistance({PROMPT: EXEMPLARS}, FeatureMemory([Colours()], cache=cache))
    own, other = pictures(FAILING, range(8)), pictures(Scene("cat", "running", "snow"), range(8))

    right, wrong = detector.judge(own, [PROMPT] * 8), detector.judge(other, [PROMPT] * 8)

    assert sum(each.is_right is True for each in right) >= 6
    assert [each.is_right for each in wrong] == [False] * 8
    assert all(each.score is not None and each.score > 1 for each in wrong)
    colours = Colours()
    again = ExemplarDistance({PROMPT: EXEMPLARS}, FeatureMemory([colours], cache=cache))
    assert again.judge(own, [PROMPT] * 8) == right
    assert colours.seen == len(EXEMPLARS), "the images' features are kept for a later correction"


def test_a_prompt_with_few_exemplars_is_not_judged_by_them() -> None:
    detector = ExemplarDistance({PROMPT: EXEMPLARS[: MIN_EXEMPLARS - 1]}, memory())
    assert detector.lacks(PROMPT) == "needs 8 exemplars and has 7"
    assert detector.lacks("a tree") == "needs 8 exemplars and has 0"
    assert ExemplarDistance({PROMPT: EXEMPLARS}, memory()).lacks(PROMPT) is None


def test_an_installed_judge_is_a_detector_and_what_is_absent_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = EntryPoints([EntryPoint("oracle", "tests.oracle.judge:OracleJudge", JUDGES)])
    for module in ("corrector.detectors.choice", "corrector.evaluation.verdicts"):
        monkeypatch.setattr(f"{module}.entry_points", lambda group: registered)
    monkeypatch.delenv("CORRECTOR_JUDGE_URL", raising=False)

    (detector,), not_run = choose_detectors((), {}, memory)

    images = torch.cat([pictures(FAILING, [0]), pictures(FAILING, [0], broken=True)])
    assert [each.is_right for each in detector.judge(images, [PROMPT] * 2)] == [True, False]
    assert {each.name for each in not_run} == {"vision-language", "exemplar-distance", "hadm", "vqascore"}
    assert 'no installed package registers "hadm"' in dict(not_run)["hadm"]
    assert [
        each.name
        for each in choose_detectors(("oracle", "exemplar-distance"), {PROMPT: EXEMPLARS}, memory)[0]
    ] == [
        "oracle",
        "exemplar-distance",
    ]


def test_without_a_detector_the_refusal_names_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CORRECTOR_JUDGE_URL", raising=False)
    monkeypatch.setattr(choice, "entry_points", lambda group: EntryPoints())
    with pytest.raises(UserError) as refused:
        choose_detectors((), {}, memory)
    for said in (
        "no detector can run",
        "vision-language: set CORRECTOR_JUDGE_URL",
        "hadm: ",
        "onnx:FILE@THRESHOLD",
    ):
        assert said in str(refused.value)
    with pytest.raises(
        UserError, match='"vision-langauge": is unknown; detectors are vision-language, exemplar'
    ):
        choose_detectors(("vision-langauge",), {}, memory)
