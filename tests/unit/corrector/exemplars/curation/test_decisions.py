"""Decisions are read from a file, drop exemplars by content digest, and become part of the lineage."""

from pathlib import Path

import pytest

from corrector.base import resolve_base
from corrector.errors import UserError
from corrector.evaluation import Comparison
from corrector.exemplars import load_exemplars
from corrector.exemplars.curation import Decision, Decisions, without_dropped
from corrector.exemplars.provenance import ExemplarSource
from corrector.prompts import EvaluationSettings, FailingPrompt, GateThresholds
from corrector.record.correction_record import CorrectionRecord
from corrector.record.writing import correction_record
from tests.support.pictures import drawn

DROP = Decision(decision="drop", by="Ana", why="three legs")
KEEP = Decision(decision="keep", by="Bea")


def test_a_file_that_is_missing_or_wrong_is_the_users_mistake(tmp_path: Path) -> None:
    path = tmp_path / "decisions.json"
    with pytest.raises(UserError, match="cannot read"):
        Decisions.load(path)
    path.write_text('{"format": 1, "decisions": {"../x": {"decision": "drop", "by": "Ana"}}}')
    with pytest.raises(UserError, match=r"decisions\.\.\./x"):
        Decisions.load(path)


def test_of_several_files_the_last_decides(tmp_path: Path) -> None:
    paths = [tmp_path / "ana.json", tmp_path / "bea.json"]
    for path, decisions in zip(
        paths, ({"a" * 64: DROP, "b" * 64: DROP}, {"b" * 64: KEEP, "c" * 64: KEEP}), strict=True
    ):
        path.write_text(Decisions(decisions=decisions).model_dump_json())
    assert Decisions.load(*paths).decisions == {"a" * 64: DROP, "b" * 64: KEEP, "c" * 64: KEEP}
    assert Decisions.load() == Decisions()


def test_dropped_images_are_left_out_and_the_others_split_anew(tmp_path: Path) -> None:
    for number in range(8):
        drawn(64, 64, number).save(tmp_path / f"{number}.png")
    found = load_exemplars(tmp_path, resolution=32)
    assert without_dropped(found, Decisions()).sources == found.sources
    gone = [each.sha256 for each in found.training[:2]]
    kept = {found.held_out[0].sha256: KEEP}
    changed = without_dropped(found, Decisions(decisions=dict.fromkeys(gone, DROP) | kept))
    assert {each.sha256: each.decision for each in changed.sources if each.decision} == (
        dict.fromkeys(gone, DROP) | kept
    )
    assert [each.sha256 for each in changed.dropped] == gone
    assert (len(changed.held_out), len(changed.training)) == (3, 3)
    assert not set(gone) & set(changed.file_digests.values())
    assert f"{found.training[0].path.name}: dropped by Ana: three legs" in changed.notes
    everything = dict.fromkeys(found.file_digests.values(), DROP)
    with pytest.raises(UserError, match="drop 8 of 8"):
        without_dropped(found, Decisions(decisions=everything))


def test_a_kept_decision_changes_no_split_and_no_work(tmp_path: Path) -> None:
    for number in range(5):
        drawn(64, 64, number).save(tmp_path / f"{number}.png")
    found = load_exemplars(tmp_path, resolution=32)
    changed = without_dropped(found, Decisions(decisions={found.training[0].sha256: KEEP}))
    assert changed.training[0].source.decision == KEEP
    assert (changed.digest, changed.file_digests) == (found.digest, found.file_digests)


def test_a_record_says_which_exemplars_were_dropped_by_whom_and_why() -> None:
    entry = FailingPrompt(prompt="a dog", exemplars="dogs", guard_prompts=("a cat",))
    evaluation = EvaluationSettings()
    used = ExemplarSource(name="a.png", sha256="a" * 64, kind="folder", place="dogs")
    dropped = used.model_copy(update={"name": "b.png", "sha256": "b" * 64, "decision": DROP})
    record = correction_record(
        entry,
        resolve_base("embedded"),
        Comparison.of(entry, evaluation),
        work_id="work",
        evaluation=evaluation,
        gate=GateThresholds(),
        exemplars=(used, dropped),
        code="1",
        status="failed",
        error="stopped",
    )
    assert record.lineage["exemplars"] == {"a.png": "a" * 64}
    again = CorrectionRecord.model_validate_json(record.model_dump_json())
    assert again.exemplars == (used, dropped)
    older = record.model_dump(mode="json", exclude={"exemplars"})
    assert CorrectionRecord.model_validate(older).exemplars == ()
