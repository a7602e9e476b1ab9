"""The search as a user submits it: on a real Ray, to its end, and with mistakes. Killed: `tests/cluster`."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console

from corrector.prompts import load_batch
from corrector.registry.search_record import PromptSearchResult, SearchResult
from corrector.registry.searches import EXPERIMENT, log_search
from corrector.registry.store import local_uri
from corrector.settings import Settings
from jobs.batch import check_batch
from jobs.plan import LaneWishes
from jobs.search import main
from jobs.search_driver import SearchJob
from jobs.search_plan import check_search_work
from tests.jobs.test_correct import write_batch
from tests.registry.search_results import search_result

SPACE = {"rank": [1, 2, 4], "learning_rate": [1e-4, 1e-3, 1e-2]}


def write_search(
    folder: Path, base: Path, *, steps: int = 8, names: tuple[str, ...] = ("person",), **search: Any
) -> Path:
    """A batch with a small search."""
    path = write_batch(folder, base, steps=steps, names=names)
    batch = json.loads(path.read_text())
    batch["evaluation"] |= {"num_inference_steps": 2}
    batch["search"] = {
        "trials": 5,
        "rungs": 2,
        "reduction_factor": 2,
        "first_images": 4,
        "space": SPACE,
    } | search
    path.write_text(json.dumps(batch))
    return path


def search(path: Path, storage: Path, *, resume: bool = False) -> tuple[int, SearchResult, str]:
    """Submit a search in this process; its exit status, result, and what it printed."""
    work = check_batch(path, storage=storage, run="run")
    check_search_work(work)
    printed = io.StringIO()
    job = SearchJob(work, Console(file=printed, width=200), wishes=LaneWishes(slots=2), resume=resume)
    status = job.run()
    result = SearchResult.model_validate_json((storage / "run" / "search.json").read_text())
    return status, result, printed.getvalue()


def told(prompt: PromptSearchResult) -> list[tuple[object, ...]]:
    """What each trial tried and scored."""
    return [
        (trial.configuration, [(report.steps, report.score.score) for report in trial.reports])
        for trial in prompt.trials
    ]


@pytest.mark.timeout(900)
def test_more_trials_than_slots_come_to_an_end_and_the_best_is_registered(
    cluster: None, tmp_path: Path, small_sd3: Path
) -> None:
    path = write_search(tmp_path, small_sd3, names=("person", "dog"))
    status, result, printed = search(path, tmp_path / "runs")

    # Noise teaches nothing, so the gate lets nothing through; the adapters are registered for people to see.
    assert status == 1
    assert [prompt.name for prompt in result.prompts] == ["person", "dog"]
    for prompt in result.prompts:
        assert len(prompt.trials) == 5
        assert prompt.trials[0].state == "finished"
        assert {trial.state for trial in prompt.trials} <= {"finished", "stopped"}
        assert prompt.chosen is not None
        assert prompt.chosen.confirmed is not None
        assert prompt.reason in printed
    corrections = json.loads((tmp_path / "runs" / "run" / "result.json").read_text())["prompts"]
    assert [prompt["adapter"]["version"] for prompt in corrections] == ["1", "1"]

    settings = replace(Settings.from_environment(), exemplar_roots=(tmp_path,))
    best = load_batch(tmp_path / "runs" / "run" / "best.yaml", settings=settings)
    for entry, prompt in zip(best.prompts, result.prompts, strict=True):
        assert prompt.chosen is not None
        assert entry.hyperparameters.rank == prompt.chosen.configuration["rank"]
    record = json.loads((Path(corrections[0]["folder"]) / "record.json").read_text())
    assert len(record["curve"]) == 8
    assert (tmp_path / "runs" / "run" / "search.html").is_file()


@pytest.mark.timeout(900)
def test_a_batch_is_searched_as_a_whole_and_begun_with_what_an_earlier_search_chose(
    cluster: None, tmp_path: Path, small_sd3: Path
) -> None:
    path = write_search(tmp_path, small_sd3, names=("person", "dog"), scope="batch", trials=2)
    work = check_batch(path, storage=tmp_path / "runs", run="run")
    known = {"rank": 4, "learning_rate": 1e-2}
    earlier = search_result("earlier")
    (prompt,) = earlier.prompts
    trials = tuple(
        trial.model_copy(update={"configuration": known}) if trial.index == prompt.best else trial
        for trial in prompt.trials
    )
    prompt = prompt.model_copy(update={"trials": trials})
    earlier = earlier.model_copy(update={"base_revision": work.spec.revision, "prompts": (prompt,)})
    log_search(earlier, tracking_uri=None, root=work.run.registry)

    _, result, printed = search(path, tmp_path / "runs")

    assert "begun with what an earlier search chose: rank 4  learning_rate 0.01" in printed
    person, dog = result.prompts
    assert [trial.configuration for trial in person.trials] == [trial.configuration for trial in dog.trials]
    assert person.trials[1].configuration == known
    assert [trial.state for trial in person.trials] == [trial.state for trial in dog.trials]
    assert person.trials[0].state == "finished"
    assert person.best is not None
    assert (person.best, person.reason) == (dog.best, dog.reason)
    assert all(prompt.chosen is not None and prompt.chosen.confirmed is not None for prompt in result.prompts)

    client = MlflowClient(local_uri(work.run.registry))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    logged = {run.info.run_name: run.info.status for run in runs}
    assert {logged[name] for name in ("person", "dog", "person-000", "dog-000")} == {"FINISHED"}
    assert {logged[name] for name in ("person-001", "dog-001")} <= {"FINISHED", "KILLED"}


def test_what_only_base_and_exemplars_can_tell_is_told_before_anything_starts(
    tmp_path: Path, small_sd3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_search(tmp_path, small_sd3, space={"rank": [2, 900]})
    for file in list((tmp_path / "person").glob("*.png"))[2:]:
        file.unlink()

    assert main([str(path), "--storage", str(tmp_path / "runs")]) == 2

    told = capsys.readouterr().err
    assert "search.space.rank: rank 900 (person) is above the width of the base's layers" in told
    assert "exemplars: too few to hold any out" in told
    assert "batch.json:1: " in told
    assert not (tmp_path / "runs").exists()
