"""A record is whole or absent, survives a round trip, and notices changed bytes."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from corrector.record.correction_record import WEIGHTS_FILE, CorrectionRecord, CurvePoint, RecordError
from tests.support.records import write_record
from tests.world.scenes import Scene

SCENE = Scene("person", "lying", "grass")
MINIMAL: dict[str, Any] = {
    "name": "a", "prompt": "a", "work_id": "w", "base_reference": "embedded",
    "base_name": "e", "base_revision": "r",
}  # fmt: skip


def test_a_saved_record_loads_as_it_was(tmp_path: Path) -> None:
    record = write_record(tmp_path, SCENE, pairs=2, guard_images=1)
    assert CorrectionRecord.load(tmp_path) == record
    assert not list(tmp_path.glob(".*")), "temporary files are left over"


def test_numbers_that_json_lacks_survive(tmp_path: Path) -> None:
    point = CurvePoint(step=3, loss=math.nan, grad_norm=math.inf)
    CorrectionRecord(**MINIMAL, status="failed", error="diverged", curve=(point,)).save(tmp_path)
    loaded = CorrectionRecord.load(tmp_path).curve[0]
    assert math.isnan(loaded.loss)
    assert loaded.grad_norm == math.inf


def test_a_step_report_with_more_keys_is_a_curve_point() -> None:
    assert CurvePoint.model_validate({"step": 1, "steps": 9, "loss": 0.5}) == CurvePoint(step=1, loss=0.5)


def test_images_come_back_in_order_and_pairwise(tmp_path: Path) -> None:
    shades = torch.linspace(0, 1, 12).reshape(12, 1, 1, 1).expand(12, 3, 4, 4)
    CorrectionRecord.write_images(
        tmp_path,
        exemplars=shades[:3],
        before=shades,
        after=1 - shades,
        guards=[(shades[:2], shades[2:4])] * 11,
        negatives=[(shades[:1], shades[1:2])] * 3,
    )
    images = CorrectionRecord.images(tmp_path)
    assert [path.name for path in images.before] == [f"{k:03d}.png" for k in range(12)]
    assert len(images.after) == 12
    assert len(images.exemplars) == 3
    assert images.held_out == ()
    assert [before[0].parts[-3] for before, _ in images.guards] == [str(k) for k in range(11)]
    assert [len(arm) for negative in images.negatives for arm in negative] == [1] * 6


def test_new_images_withdraw_the_record_that_described_the_old(tmp_path: Path) -> None:
    write_record(tmp_path, SCENE, pairs=4, guard_images=1)
    CorrectionRecord.write_images(tmp_path, exemplars=torch.zeros(1, 3, 4, 4))
    assert CorrectionRecord.images(tmp_path).before == ()
    with pytest.raises(RecordError, match=r"no record\.json"):
        CorrectionRecord.load(tmp_path)


def test_unpaired_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="guard 0"):
        CorrectionRecord.write_images(tmp_path, guards=[(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4))])
    alike, unlike = ((torch.zeros(1, 3, 4, 4), torch.zeros(n, 3, 4, 4)) for n in (1, 2))
    with pytest.raises(ValueError, match="hard negative 1"):
        CorrectionRecord.write_images(tmp_path, negatives=[alike, unlike])


def test_a_record_from_before_hard_negatives_were_drawn_loads(tmp_path: Path) -> None:
    record = write_record(tmp_path, SCENE, pairs=2, guard_images=1)
    earlier = json.loads((tmp_path / "record.json").read_text())
    del earlier["hard_negatives"]
    del earlier["scorecard"]["false_route"]
    (tmp_path / "record.json").write_text(json.dumps(earlier))
    shutil.rmtree(tmp_path / "images" / "negatives")

    loaded = CorrectionRecord.load(tmp_path)

    assert loaded.hard_negatives == ()
    assert CorrectionRecord.images(tmp_path).negatives == ()
    assert loaded.scorecard is not None and record.scorecard is not None
    assert loaded.scorecard.false_route is None
    assert loaded.scorecard.verdict == record.scorecard.verdict


def test_changed_or_missing_weights_are_noticed(tmp_path: Path) -> None:
    record = write_record(tmp_path, SCENE, pairs=2, guard_images=1)
    weights = tmp_path / "adapter" / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(RecordError, match="SHA-256"):
        record.verify(tmp_path)
    weights.unlink()
    with pytest.raises(RecordError, match="missing"):
        record.save(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"name": "x"}', "\udcff"])
def test_a_damaged_record_is_a_users_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RecordError, match="not a correction record"):
        CorrectionRecord.load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "failed"},
        {"status": "corrected"},
        {"status": "failed", "error": "x", "work_id": "a' or 'b"},
        {"status": "failed", "error": "x", "adapter_sha256": "00"},
        {"status": "failed", "error": "x", "misspelt": 1},
    ],
)
def test_inconsistent_records_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CorrectionRecord(**{**MINIMAL, **changes})
