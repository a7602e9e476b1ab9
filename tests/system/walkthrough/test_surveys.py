"""The walk of corrector/preference/README.md in small: a survey, its raters, a judge, and the gate that follows it."""

import json
from pathlib import Path

import pytest

from tests.support.guide_walks import SURVEYS, Walker
from tests.support.records import write_record
from tests.world.scenes import Scene

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("walks")]  # each has a Ray of its own


def test_people_come_to_trust_a_judge_and_the_gate_follows_it(tmp_path: Path) -> None:
    walker = Walker(tmp_path)
    record = tmp_path / "runs" / "people" / "prompts" / "person" / "record"
    write_record(
        record, Scene("person", "lying", "grass"), "rejected", pairs=24
    )  # half of the images are right
    batch = tmp_path / "jobs" / "examples" / "judged.yaml"
    few = "{judge: vision-language, guard_images: 6, hard_negatives: 0}"
    batch.write_text(batch.read_text().replace("{judge: vision-language}", few))
    said = walker.walk(
        SURVEYS,
        changes={"--pairs 52": "--pairs 20", "agree surveys/people": "agree surveys/people --pairs 20"},
    )

    assert "3 raters answered" in said
    survey = tmp_path / "surveys" / "people"
    agreement = json.loads((survey / "agreement.json").read_text())
    assert [agreement[part]["trust"]["status"] for part in ("pairs", "images")] == ["trusted", "trusted"], (
        said
    )
    (prompt,) = json.loads((tmp_path / "runs" / "judged" / "result.json").read_text())["prompts"]
    assert (prompt["status"], prompt["grade"]) == ("corrected", "fixed"), said
