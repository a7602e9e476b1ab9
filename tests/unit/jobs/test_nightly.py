"""Flagged prompts become tonight's batch when people have completed them; the others are listed with what they lack."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from corrector.prompts import load_batch
from jobs.nightly import main
from tests.support.paths import EXEMPLARS

IMAGES = EXEMPLARS / "person-lying-on-the-grass"
DAY = 24 * 3600.0
Nightly = Callable[..., int]


@pytest.fixture
def nightly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nightly:
    """Runs the command on bad verdicts on these prompts, given as (prompt, days ago)."""
    monkeypatch.delenv("CORRECTOR_DATABASE", raising=False)

    def run(*flagged: tuple[str, float], options: tuple[str, ...] = ()) -> int:
        lines = [
            {
                "verdict": "bad",
                "given": time.time() - days * DAY,
                "key": "shop",
                "request": {"prompt": prompt, "seeds": [7], "adapter": None, "base_revision": "r"},
            }
            for prompt, days in flagged
        ]
        verdicts = tmp_path / "verdicts.jsonl"
        verdicts.write_text("".join(json.dumps(line) + "\n" for line in lines))
        places = ("--exemplars", str(tmp_path / "exemplars"), "--out", str(tmp_path / "out"))
        return main([str(verdicts), *places, *options])

    return run


def complete(tmp_path: Path, name: str, entry: str | None = "guard_prompts: [a person standing]") -> None:
    folder = tmp_path / "exemplars" / name
    shutil.copytree(IMAGES, folder)
    if entry is not None:
        (folder / "entry.yaml").write_text(entry)


def test_complete_prompts_are_a_batch_and_others_are_listed(
    nightly: Nightly, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(tmp_path, "a-person-lying", "guard_prompts: [a person standing]\npriority: 7\nprompt: other\n")
    complete(tmp_path, "a-cat", None)
    complete(tmp_path, "a-bird", "guard_promts: [a bird standing]")
    (tmp_path / "exemplars" / "a-fish").mkdir()
    (tmp_path / "exemplars" / "a-fish" / "entry.yaml").write_text("guard_prompts: [a shark]")
    flagged = [(prompt, 1.0) for prompt in ("a person lying", "a dog", "a cat", "a bird", "a fish")]
    assert nightly(*flagged, options=("--base", "owner/name", "--gpus", "2")) == 0
    batch = load_batch(tmp_path / "out" / "flagged.yaml")
    assert batch.base == "owner/name"
    assert [(each.prompt, each.priority) for each in batch.prompts] == [("a person lying", 7)]
    said = capsys.readouterr().out
    assert "a-dog: left out, flagged 1 times: no folder" in said
    assert "a-cat: left out, flagged 1 times: no entry.yaml" in said
    assert "a-bird: left out" in said and "guard_promts" in said
    assert "a-fish: left out" in said and "no images" in said
    assert "python -m jobs.correct flagged.yaml --run-id nightly-" in said and said.rstrip().endswith(
        " --gpus 2"
    )


def test_only_verdicts_of_the_last_days_count(
    nightly: Nightly, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(tmp_path, "a-dog")
    assert nightly(("a dog", 15)) == 0
    assert "nothing was flagged in the last 14 days" in capsys.readouterr().out
    assert nightly(("a dog", 15), options=("--days", "16")) == 0
    assert [
        entry["name"] for entry in yaml.safe_load((tmp_path / "out" / "flagged.yaml").read_text())["prompts"]
    ] == ["a-dog"]


@pytest.mark.parametrize("entry", ["[1]", "a: [", "\x00"])
def test_an_entry_that_cannot_be_read_is_left_out(
    nightly: Nightly, tmp_path: Path, entry: str, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(tmp_path, "a-dog", entry)
    assert nightly(("a dog", 1)) == 1
    assert "a-dog: left out, flagged 1 times: entry.yaml: " in capsys.readouterr().out


def test_a_folder_that_is_there_is_not_written_into(
    nightly: Nightly, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    assert nightly(("a dog", 1)) == 2
    assert "out: File exists" in capsys.readouterr().err
