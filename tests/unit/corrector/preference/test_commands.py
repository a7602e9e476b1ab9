"""The commands of a survey: made from a run or from registered versions, its raters, votes and end."""

from __future__ import annotations

import shutil
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from corrector.preference.__main__ import main
from corrector.preference.showing import showings
from corrector.preference.survey_folder import open_survey, read_survey
from corrector.record.correction_record import CorrectionRecord
from corrector.registry import register
from tests.support.commands import run
from tests.support.records import write_record
from tests.support.surveys import LEFT
from tests.world.scenes import Scene

SCENE = Scene("person", "lying", "grass")
NAME = "a-person-lying-on-the-grass"


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in (
        "CORRECTOR_DATABASE",
        "CORRECTOR_SURVEY_SECRET",
        "MLFLOW_TRACKING_URI",
        "CORRECTOR_JUDGE_URL",
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CORRECTOR_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def record(folder: Path, name: str, **changes: Any) -> Path:
    write_record(folder / name, SCENE, pairs=4, guard_images=2, steps=5, work_id=name, **changes)
    return folder / name


def survey(*arguments: str | Path) -> CompletedProcess[str]:
    return run(main, *arguments)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A survey of a run with one correction and a failed prompt."""
    record(tmp_path / "run", "one")
    write_record(tmp_path / "run" / "failed", SCENE, "failed", name="failed")
    made = survey(
        "make", tmp_path / "survey", "--from-run", tmp_path / "run", "--checks", "1", "--pairs", "3"
    )
    assert (made.returncode, made.stdout) == (0, f"{tmp_path / 'survey'}: 3 pairs, 1 attention checks\n"), (
        made.stderr
    )
    return tmp_path / "survey"


def test_a_survey_of_a_run_compares_base_and_correction(made: Path) -> None:
    definition = read_survey(made)
    assert definition.arms == {"a": "base embedded", "b": f"corrected {NAME}"}
    assert definition.id.startswith("survey-")
    assert definition.adapters == {"b": CorrectionRecord.load(made.parent / "run" / "one").adapter_sha256}
    counting = [pair for pair in definition.pairs if pair.expected is None]
    assert {pair.seed for pair in counting} <= set(range(1000, 1004)) and len(counting) == 3


def test_registered_versions_are_compared_with_the_base_or_with_each_other(
    tmp_path: Path, runs: Path, empty_registry: Path
) -> None:
    shutil.copytree(empty_registry, runs / "registry")
    for name in ("one", "two"):
        register(record(tmp_path, name), tracking_uri=None, root=runs / "registry")
    alone = survey("make", tmp_path / "alone", "--version", f"{NAME}/1")
    assert alone.returncode == 0, alone.stderr
    assert read_survey(tmp_path / "alone").arms == {"a": "base embedded", "b": f"{NAME}/1"}
    both = survey("make", tmp_path / "both", "--version", f"{NAME}/2", "--against", f"{NAME}/1")
    assert both.returncode == 0, both.stderr
    definition = read_survey(tmp_path / "both")
    assert definition.arms == {"a": f"{NAME}/1", "b": f"{NAME}/2"}
    assert definition.adapters.keys() == {"a", "b"}
    assert len([pair for pair in definition.pairs if pair.expected is None]) == 4
    missing = survey("make", tmp_path / "none", "--version", f"{NAME}/7")
    assert missing.returncode == 2 and "version 7 not found" in missing.stderr
    assert not (tmp_path / "none").exists()


def test_a_survey_is_followed_closed_and_exported(made: Path, tmp_path: Path) -> None:
    links = survey("links", made, "Ann", "Ben", "--address", "https://survey.example/s/")
    again = survey("links", made, "Ann", "--address", "https://survey.example/s")
    name, url = links.stdout.splitlines()[0].split("\t")
    assert name == "Ann" and url.startswith("https://survey.example/s/") and url.endswith("/")
    assert again.stdout.splitlines() == [links.stdout.splitlines()[0]]
    with open_survey(made) as (definition, store):
        rater = next(each.rater.pseudonym for each in store.progress() if each.rater.name == "Ann")
        view = store.show(rater, 0, showings(definition, rater)[0])
        store.vote(rater, vote_id="0" * 32, view_id=view.id, answers=LEFT, seconds=2.0)
    progress = survey("progress", made)
    (ann,) = [line for line in progress.stdout.splitlines() if "Ann" in line]
    assert "(open)" in progress.stdout and ann.split("│")[2:5] == [" 1        ", " 4  ", " 0        "]
    assert survey("close", made).returncode == 0
    closed = survey("close", made)
    assert (closed.returncode, "was closed before" in closed.stdout) == (1, True)
    assert "(closed)" in survey("progress", made, "--follow", "1").stdout
    exported = survey("export", made, tmp_path / "votes.jsonl")
    assert exported.stdout.endswith("votes.jsonl: 1 votes\n")
    tasks = survey("export", made, tmp_path / "tasks.json", "--format", "label-studio")
    assert tasks.returncode == 0 and (tmp_path / "tasks.xml").is_file()
    database = f"sqlite:///{tmp_path / 'other.sqlite'}"
    imported = survey("import", made, tmp_path / "votes.jsonl", "--database", database)
    assert imported.stdout.endswith("votes.jsonl: 1 new votes\n"), imported.stderr
    analysed = survey("analyse", made, "--out", tmp_path / "analysis.json")
    assert analysed.returncode == 0 and (tmp_path / "analysis.json").is_file(), analysed.stderr
    assert survey("forget", made, "Ann").returncode == 0
    progress = survey("progress", made)
    assert "Ann" not in progress.stdout and f"forgotten ({rater})" in progress.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("make", "{0}/new", "--from-run", "{0}/run/failed"), "no record.json of a correction"),
        (("make", "{0}/survey", "--from-run", "{0}/run"), "is there already"),
        (("make", "{0}/new", "--from-run", "{0}/run", "--against", "x/1"), "needs --version"),
        (("make", "{0}/new", "--from-run", "{0}/run", "--repeats", "2"), "is no share"),
        (("make", "{0}/new", "--from-run", "{0}/run", "--title", ""), "give 1 to 200"),
        (("make", "{0}/new", "--version", "a:b"), "no name of a registered adapter"),
        (("links", "{0}/survey", "\x1b[31mAnn"), "is no name"),
        (("links", "{0}/nowhere", "Ann"), "no survey.json"),
        (("forget", "{0}/survey", "Nobody"), "has no rater 'Nobody'"),
        (("import", "{0}/survey", "{0}/none.jsonl"), "cannot be read"),
        (("judge", "{0}/survey"), "CORRECTOR_JUDGE_URL: is not set"),
        (("agree", "{0}/survey"), "no judge.json; run"),
        (("attach", "{0}/survey", "x:1"), "no name of a registered adapter"),
        (("export", "{0}/survey", "{0}/no/file"), "cannot be written"),
        (("progress", "{0}/survey", "--database", "nonsense://x"), "is no database"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:1]),
)
def test_mistakes_are_named(made: Path, tmp_path: Path, arguments: tuple[str, ...], named: str) -> None:
    found = survey(*(argument.format(tmp_path) for argument in arguments))
    assert found.returncode == 2 and named in found.stderr and "\x1b" not in found.stderr
    assert "Traceback" not in found.stderr and not (tmp_path / "new").exists()
