"""The search as a user submits it: on a real Ray, to its end, killed half-way, and with mistakes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from corrector.prompts import load_batch
from corrector.registry.search_record import PromptSearchResult, SearchResult
from corrector.settings import Settings
from jobs.batch import check_batch
from jobs.plan import LaneWishes
from jobs.search import main
from jobs.search_driver import SearchJob
from jobs.search_plan import check_search_work
from tests.jobs.test_correct import ROOT, write_batch

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
def test_a_killed_search_goes_on_and_repeats_nothing(cluster: None, tmp_path: Path, small_sd3: Path) -> None:
    path = write_search(tmp_path, small_sd3, steps=200)
    storage = tmp_path / "runs"
    command = [sys.executable, "-m", "jobs.search", str(path), "--storage", str(storage), "--run-id", "run"]
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "OMP_NUM_THREADS": "1"}
    driver = subprocess.Popen(
        [*command, "--slots", "2"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    until = time.monotonic() + 200
    while time.monotonic() < until and len(list(storage.glob("run/trials/*/*/reports.json"))) < 2:
        assert driver.poll() is None
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = {file: json.loads(file.read_text()) for file in storage.glob("run/trials/*/*/reports.json")}
    assert before

    assert main([*command[3:], "--slots", "2"]) == 2  # only --resume goes on

    _, result, _ = search(path, storage, resume=True)
    (prompt,) = result.prompts
    assert len(prompt.trials) == 5
    assert {trial.state for trial in prompt.trials} <= {"finished", "stopped"}
    for file, reports in before.items():
        assert json.loads(file.read_text())[: len(reports)] == reports

    _, again, _ = search(path, storage, resume=True)
    assert told(again.prompts[0]) == told(prompt)
    assert again.prompts[0].best == prompt.best


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
