"""A judge of images decides only where a file says that it agrees with people; the gate is told why it does not."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from corrector.detectors.judge_settings import JudgeSettings
from corrector.detectors.trust import advisory_reason
from corrector.detectors.vision_language import VisionLanguage
from corrector.errors import UserError
from corrector.evaluation.verdicts import advisory_reason as gates_reason
from tests.oracle.judge import OracleJudge

JUDGE = "vision-language eyes 01234567"
LOW = "kappa 0.41 on 60 pairs; 0.6 on 50 wanted"


def written(folder: Path, images: Any) -> Path:
    file = folder / "agreement.json"
    file.write_text(json.dumps({"survey": "s", "images": images}))
    return file


def images(status: str, judge: str = JUDGE) -> dict[str, Any]:
    return {"judge": judge, "questions": {}, "trust": {"status": status, "reason": LOW}}


def test_a_judge_that_agrees_with_people_is_trusted(tmp_path: Path) -> None:
    assert advisory_reason(JUDGE, written(tmp_path, images("trusted"))) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (images("advisory"), LOW),
        (images("trusted", "vision-language other 01234567"), "is about vision-language other"),
        (None, "has no verdicts on single images"),
    ],
)
def test_a_judge_that_does_not_is_advisory(tmp_path: Path, content: Any, why: str) -> None:
    reason = advisory_reason(JUDGE, written(tmp_path, content))
    assert reason is not None and why in reason


def test_a_file_that_is_no_agreement_is_named(tmp_path: Path) -> None:
    for file in (tmp_path / "none.json", written(tmp_path, {"judge": 1})):
        with pytest.raises(UserError, match=rf"CORRECTOR_JUDGE_AGREEMENT: {file}: cannot be read"):
            advisory_reason(JUDGE, file)


def test_the_gate_asks_the_judge_itself_and_one_that_says_nothing_is_trusted(tmp_path: Path) -> None:
    settings = JudgeSettings("http://127.0.0.1:9/v1", "eyes", Decimal(0), Decimal(0), tmp_path)
    judge = VisionLanguage(settings)
    reason = gates_reason(judge)
    assert reason is not None and "CORRECTOR_JUDGE_AGREEMENT names none" in reason
    file = written(tmp_path, images("trusted", judge.name))
    environment = {
        "CORRECTOR_CACHE": str(tmp_path),
        "CORRECTOR_JUDGE_URL": settings.url,
        "CORRECTOR_JUDGE_MODEL": "eyes",
        "CORRECTOR_JUDGE_PRICE": "0",
        "CORRECTOR_JUDGE_BUDGET": "0",
        "CORRECTOR_JUDGE_AGREEMENT": str(file),
    }
    assert gates_reason(VisionLanguage(JudgeSettings.from_environment(environment))) is None
    assert gates_reason(OracleJudge()) is None
