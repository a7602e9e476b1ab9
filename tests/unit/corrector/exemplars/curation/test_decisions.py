"""Decisions are read from a file, drop exemplars by content digest, and become part of the lineage."""

from pathlib import Path
from typing import Any

import pytest

from corrector.base import resolve_base
from corrector.errors import UserError
from corrector.evaluation import Comparison
from corrector.exemplars import load_exemplars
from corrector.exemplars.curation import Decision, Decisions, without_dropped
from corrector.prompts import EvaluationSettings, FailingPrompt, GateThresholds
from corrector.record.writing import correction_record
from tests.support.pictures import drawn

DROP = Decision(decision="drop", by="Ana", why="three legs")


def test_a_file_that_is_missing_or_wrong_is_the_users_mistake(tmp_path: Path) -> None:
    path = tmp_path / "decisions.json"
    with pytest.raises(UserError, match="cannot read"):
        Decisions.load(path)
    path.write_text('{"format": 1, "decisions": {"../x": {"decision": "drop", "by": "Ana"}}}')
    with pytest.raises(UserError, match=r"decisions\.\.\./x"):
        Decisions.load(path)


def test_dropped_images_are_left_out_and_the_others_split_anew(tmp_path: Path) -> None:
    for number in range(8):
        drawn(64, 64, number).save(tmp_path / f"{number}.png")
    found = load_exemplars(tmp_path, resolution=32)
    assert without_dropped(found, Decisions()) == (found, {})
    gone = [each.sha256 for each in found.training[:2]]
    changed, dropped = without_dropped(found, Decisions(decisions=dict.fromkeys(gone, DROP)))
    assert dropped == dict.fromkeys(gone, "by Ana: three legs")
    assert (len(changed.held_out), len(changed.training)) == (3, 3)
    assert not set(gone) & set(changed.file_digests.values())
    assert f"{found.training[0].path.name}: dropped by Ana: three legs" in changed.notes
    everything = dict.fromkeys(found.file_digests.values(), DROP)
    with pytest.raises(UserError, match="drop 8 of 8"):
        without_dropped(found, Decisions(decisions=everything))


def test_a_record_says_which_exemplars_were_dropped_by_whom_and_why() -> None:
    entry = FailingPrompt(prompt="a dog", exemplars="dogs", guard_prompts=("a cat",))
    evaluation, gate = EvaluationSettings(), GateThresholds()
    given: dict[str, Any] = {
        "work_id": "work",
        "evaluation": evaluation,
        "gate": gate,
        "exemplar_digests": {"a.png": "b" * 64},
        "code": "1",
        "status": "failed",
        "error": "stopped",
    }
    spec, comparison = resolve_base("embedded"), Comparison.of(entry, evaluation)
    record = correction_record(
        entry, spec, comparison, dropped_exemplars={"a" * 64: "by Ana: three legs"}, **given
    )
    assert record.lineage["dropped_exemplars"] == {"a" * 64: "by Ana: three legs"}
    assert "dropped_exemplars" not in correction_record(entry, spec, comparison, **given).lineage
