"""What people and a judge prefer is stored with the version that they compared, shown, and asked for by a promotion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from corrector.preference.__main__ import main
from corrector.preference.attached import ATTACHED_FILE, AttachedSurvey
from corrector.preference.making import SurveyPlan, make_survey, pairs_of_record
from corrector.preference.survey import Choice, Survey
from corrector.record.correction_record import CorrectionRecord
from corrector.registry import RegistryError
from corrector.registry.__main__ import main as registry_main
from corrector.registry.promotion import promote
from corrector.registry.restore import find_works, restore_record
from corrector.report import write_report
from tests.support.commands import run
from tests.support.records import scorecard
from tests.support.registering import NAME, PERSON, Registering
from tests.unit.corrector.preference.ballots import said, store_ballots, votes

PAIRS = 12
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CORRECTOR_DATABASE", "CORRECTOR_SURVEY_SECRET", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COLUMNS", "300")


def version(registered: Registering, seed: int = 1, **required: Any) -> None:
    """A version with as many pairs as the surveys, whose thresholds require something of a promotion."""
    card = scorecard(True, PAIRS, [PERSON], {})
    thresholds = card.thresholds.model_copy(update=required)
    registered(seed, pairs=PAIRS, scorecard=card.model_copy(update={"thresholds": thresholds}))


def asked(
    folder: Path,
    record: Path,
    answers: list[Choice],
    judge: list[Choice] | None = None,
    title: str = "Which?",
) -> Survey:
    """A survey of a record's pairs in `folder`, with what people and a judge prefer."""
    known = CorrectionRecord.load(record)
    arms: Any = {"a": "base embedded", "b": f"{NAME}/1"}
    plan = SurveyPlan("asked", title, arms, 0, PAIRS, checks=0, adapters={"b": known.adapter_sha256 or ""})
    survey = make_survey(pairs_of_record(record, known), folder, plan)
    store_ballots(folder, survey, votes(survey, answers))
    if judge is not None:
        (folder / "judge.json").write_text(said(survey, [(each, each) for each in judge]).model_dump_json())
    return survey


def attach(folder: Path, root: Path, number: int = 1) -> str:
    attached = run(main, "attach", folder, f"{NAME}/{number}", "--root", root)
    assert attached.returncode == 0, attached.stderr
    return attached.stdout


def registry(root: Path, *words: str) -> str:
    found = run(registry_main, *words, "--root", root)
    assert found.returncode == 0, found.stderr
    return " ".join(found.stdout.split())


MOSTLY: list[Choice] = ["a" if place == 11 else "b" for place in range(PAIRS)]


@pytest.fixture
def attached(registered: Registering, root: Path, tmp_path: Path) -> None:
    """A version that people and a trusted judge prefer to the base."""
    version(registered)
    asked(tmp_path / "survey", tmp_path / "record-1", MOSTLY, MOSTLY, title=HOSTILE)
    assert run(main, "agree", tmp_path / "survey", "--pairs", "12").returncode == 0
    attach(tmp_path / "survey", root)


PEOPLE = "preferred to base embedded in 92% [65%, 99%] of 12 decided pairs (overall, p = "
TRUSTED = "trusted: kappa 1.00 on 12 pairs; 0.6 on 12 wanted"


@pytest.mark.usefixtures("attached")
def test_a_survey_is_stored_with_its_version(root: Path, client: MlflowClient) -> None:
    found = client.get_model_version(NAME, "1")
    tags = {key: value for key, value in found.tags.items() if key.startswith(("survey.", "judge."))}
    wanted = {
        "survey.win_rate": "0.9167",
        "survey.pairs": "12",
        "survey.raters": "3",
        "judge.pairs": "12",
        "judge.flip_rate": "0",
        "judge.kappa": "1",
        "judge.trusted": "true",
        "judge.name": "vision-language-pairs eyes 01234567",
    }
    assert wanted.items() <= tags.items()
    assert {
        "survey.win_rate_low",
        "survey.p",
        "judge.win_rate",
        "judge.win_rate_low",
        "judge.p",
    } < tags.keys()
    artifacts = root / "artifacts" / (found.run_id or "") / "artifacts"
    stored = AttachedSurvey.load(artifacts / ATTACHED_FILE, found.tags["adapter_sha256"])
    assert stored.trust.status == "trusted"
    page = (artifacts / "survey.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count("data:image/webp;base64,") == 2 * PAIRS
    assert PEOPLE in page and TRUSTED in page
    escaped = r"preferred to base embedded in 92% \[65%, 99%\] of 12 decided pairs \(overall, p"
    assert escaped in (artifacts / "model" / "README.md").read_text()


@pytest.mark.usefixtures("attached")
def test_it_is_shown_with_its_version_and_before_a_promotion(root: Path) -> None:
    for shown in (registry(root, "show", f"{NAME}/1"), registry(root, "promote", NAME, "--who", "Ada")):
        assert f"people: {PEOPLE}" in shown
        assert TRUSTED in shown


@pytest.mark.usefixtures("attached")
def test_it_comes_back_with_the_record_and_stands_in_the_report(root: Path, tmp_path: Path) -> None:
    work = find_works({"work-1": NAME}, tracking_uri=None, root=root)["work-1"]
    restored = restore_record(work, tmp_path / "back", tracking_uri=None, root=root)

    def report() -> str:
        records = [(restored, CorrectionRecord.load(restored))]
        return write_report(records, tmp_path / "report.html", title="Run", job={}).read_text()

    page = report()
    assert "What people and judges prefer" in page and PEOPLE in page and TRUSTED in page
    (restored / ATTACHED_FILE).write_text("{}")
    assert "is no attached survey" in report()


def test_another_survey_replaces_it_and_a_comparison_shows_both(
    registered: Registering, root: Path, tmp_path: Path, client: MlflowClient
) -> None:
    version(registered, 1)
    version(registered, 2)
    asked(tmp_path / "judged", tmp_path / "record-1", MOSTLY, MOSTLY)
    assert "judge.trusted false" in attach(tmp_path / "judged", root)
    assert client.get_model_version(NAME, "1").tags["judge.trusted"] == "false"
    asked(tmp_path / "again", tmp_path / "record-1", ["a"] * PAIRS)

    attach(tmp_path / "again", root)

    tags = client.get_model_version(NAME, "1").tags
    assert tags["survey.win_rate"] == "0"
    assert not [key for key in tags if key.startswith("judge.")]
    assert "people preferred to base embedded in 0% [" in registry(root, "diff", f"{NAME}/1", f"{NAME}/2")


def test_a_survey_of_another_adapter_is_refused(
    registered: Registering, root: Path, tmp_path: Path, client: MlflowClient
) -> None:
    version(registered, 1)
    version(registered, 2)
    asked(tmp_path / "survey", tmp_path / "record-1", MOSTLY)

    wrong = run(main, "attach", tmp_path / "survey", f"{NAME}/2", "--root", root)

    assert wrong.returncode == 2
    assert f'its arm "b" is {NAME}/1, the adapter' in wrong.stderr and "make --version" in wrong.stderr
    assert "survey.pairs" not in client.get_model_version(NAME, "2").tags
    missing = run(main, "attach", tmp_path / "survey", f"{NAME}/7", "--root", root)
    assert missing.returncode == 2 and "version 7 not found" in missing.stderr


@pytest.mark.parametrize(
    ("required", "answers", "judge", "objection"),
    [
        ({"require_survey": True}, None, None, "require_survey: no survey is attached; make one"),
        ({"require_survey": True}, ["a"] * 12, None, r"people prefer it in 0% .* a lower bound of 50%"),
        ({"require_survey": True}, ["both bad"] * 12, None, "people prefer it in – of the decided pairs"),
        ({"require_survey": True, "min_win_rate": 0.7}, MOSTLY, None, "a lower bound of 70%"),
        ({"require_pair_judge": True}, MOSTLY, None, "require_pair_judge: no verdicts of a judge"),
        ({"require_pair_judge": True}, MOSTLY, ["a"] * 12, "the judge prefers it in 0%"),
        (
            {"require_pair_judge": True},
            MOSTLY,
            MOSTLY,
            "the judge is advisory: kappa 1.00 on 12 pairs; 0.6 on 50",
        ),
    ],
)
def test_what_is_required_and_not_reached_needs_a_reason(
    registered: Registering,
    root: Path,
    tmp_path: Path,
    required: dict[str, Any],
    answers: list[Choice] | None,
    judge: list[Choice] | None,
    objection: str,
) -> None:
    version(registered, **required)
    if answers is not None:
        asked(tmp_path / "survey", tmp_path / "record-1", answers, judge)
        attach(tmp_path / "survey", root)

    with pytest.raises(RegistryError, match=rf"{objection}.*--why"):
        promote(NAME, who="Ada", tracking_uri=None, root=root)

    assert promote(NAME, who="Ada", why="it is needed", tracking_uri=None, root=root).overridden


def test_what_is_required_and_reached_needs_none(registered: Registering, root: Path, tmp_path: Path) -> None:
    version(registered, require_survey=True, require_pair_judge=True, min_win_rate=0.6)
    asked(tmp_path / "survey", tmp_path / "record-1", MOSTLY, MOSTLY)
    assert run(main, "agree", tmp_path / "survey", "--pairs", "12").returncode == 0
    attach(tmp_path / "survey", root)

    assert not promote(NAME, who="Ada", tracking_uri=None, root=root).overridden


def test_what_is_attached_is_asked_in_the_artifact_and_not_in_a_tag(
    registered: Registering, root: Path, tmp_path: Path, client: MlflowClient
) -> None:
    version(registered, require_survey=True)
    asked(tmp_path / "survey", tmp_path / "record-1", ["a"] * PAIRS)
    attach(tmp_path / "survey", root)
    client.set_model_version_tag(NAME, "1", "survey.win_rate_low", "0.99")
    with pytest.raises(RegistryError, match="require_survey: people prefer it in 0%"):
        promote(NAME, who="Ada", tracking_uri=None, root=root)

    run_id = client.get_model_version(NAME, "1").run_id or ""
    (root / "artifacts" / run_id / "artifacts" / ATTACHED_FILE).write_text("{}")
    with pytest.raises(RegistryError, match="is no attached survey"):
        promote(NAME, who="Ada", tracking_uri=None, root=root)
    assert "is no attached survey" in registry(root, "show", f"{NAME}/1")
