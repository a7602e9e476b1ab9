"""The walk of jobs/README.md in small: one prompt, fewer exemplars and steps, and no second correction."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.support.guide_walks import PROMPTS, Walker

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("walks")]  # each has a Ray of its own


def test_a_failing_prompt_is_diagnosed_collected_curated_corrected_served_and_flagged(tmp_path: Path) -> None:
    said = Walker(tmp_path).walk(
        PROMPTS,
        keep=lambda command: not re.search("robot|cat-|a cat|jobs.correct walk/flagged", command),
        changes={
            "--decisions walk/robot.json": "",
            "--decisions walk/cat.json": "",
            "--count 30": "--count 20",
            "steps: 300": "steps: 120",
        },
    )

    assert "a person lying on the grass │ 8/8" in said
    failing = yaml.safe_load((tmp_path / "walk" / "failing.yaml").read_text())
    assert [entry["prompt"] for entry in failing["prompts"]] == ["a person lying on the grass"]
    dropped = json.loads((tmp_path / "walk" / "person.json").read_text())["decisions"]
    assert {each["decision"] for each in dropped.values()} == {"drop"}

    (prompt,) = json.loads((tmp_path / "runs" / "failing" / "result.json").read_text())["prompts"]
    assert (prompt["name"], prompt["status"]) == ("a-person-lying-on-the-grass", "corrected")
    record = next((tmp_path / "runs" / "failing" / "prompts").glob("*/record/record.json"))
    sources = json.loads(record.read_text())["exemplars"]
    assert {each["generation"]["model"] for each in sources} == {"dall-e-3"}
    assert {each["decision"]["by"] for each in sources if each["decision"]} == {"curation"}

    routes = re.findall(r"^x-adapter: (\S+)\s*$", said, re.MULTILINE)
    assert routes == ["a-person-lying-on-the-grass", "base"]
    flagged = yaml.safe_load((tmp_path / "walk" / "flagged.yaml").read_text())
    assert [entry["prompt"] for entry in flagged["prompts"]] == ["a person lying on the beach"]
