"""Scoring may be run again after any of its statements, and deletes no finished record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from corrector.base import BaseSpec, resolve_base
from corrector.prompts import GateThresholds
from corrector.record.correction_record import CorrectionRecord
from jobs.correction.sampling import DECODED_FILE, FEATURES_FILE, read_sampled
from jobs.correction.scoring import ScoringSettings, score_prompt, write_failure
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import SAMPLED_FILE, PromptFolder
from jobs.lanes.queue import PromptQueue
from tests.support.lanes import EVALUATION, FEW_IMAGES, LocalClient, prompt_tasks, run_lane


@pytest.fixture(scope="module")
def spec(small_sd3: Path) -> BaseSpec:
    return resolve_base(str(small_sd3))


@pytest.fixture(scope="module")
def settings(spec: BaseSpec) -> ScoringSettings:
    return ScoringSettings(spec, FEW_IMAGES, GateThresholds(), "abc")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, spec: BaseSpec) -> PromptTask:
    folder = tmp_path_factory.mktemp("run")
    (task,) = prompt_tasks(folder, spec, ("person",))
    run_lane(folder, spec, LocalClient(PromptQueue([task])), slots=1)
    return task


def content(folder: PromptFolder) -> dict[str, bytes]:
    files = (path for path in folder.record.path.rglob("*") if path.is_file())
    return {str(path.relative_to(folder.record.path)): path.read_bytes() for path in files}


def test_a_task_that_ray_runs_again_keeps_the_record_of_the_first_run(
    task: PromptTask, settings: ScoringSettings
) -> None:
    score_prompt(task, settings)
    first = content(task.folder)
    assert not {SAMPLED_FILE, DECODED_FILE, FEATURES_FILE} & set(first)

    (task.folder.record.path / SAMPLED_FILE).touch()  # as if the first run had died just after its rename
    score_prompt(task, settings)
    assert content(task.folder) == first

    write_failure(task, settings, "the scoring task died")
    assert content(task.folder) == first


def test_a_failed_record_gives_way_to_a_scored_one(
    tmp_path: Path, spec: BaseSpec, settings: ScoringSettings
) -> None:
    (task,) = prompt_tasks(tmp_path, spec, ("dog",))
    write_failure(task, settings, "the lane died")
    assert CorrectionRecord.load(task.folder.record.path).error == "the lane died"
    run_lane(tmp_path, spec, LocalClient(PromptQueue([task])), slots=1)

    score_prompt(task, settings)

    assert CorrectionRecord.load(task.folder.record.path).status == "rejected"
    assert {path.name for path in task.folder.place.disk.iterdir()} == {"record"}


def test_what_the_first_looks_refuse_has_no_guard_images_and_says_so(
    tmp_path: Path, spec: BaseSpec, settings: ScoringSettings
) -> None:
    early = EVALUATION.model_copy(update={"stop_early": True, "look_images": 2})
    (task,) = prompt_tasks(tmp_path, spec, ("person",))
    run_lane(tmp_path, spec, LocalClient(PromptQueue([task])), slots=1, evaluation=early)
    looks = read_sampled(task.folder)["looks"]

    score_prompt(task, replace(settings, evaluation=early))

    record = CorrectionRecord.load(task.folder.record.path)
    images = CorrectionRecord.images(task.folder.record.path)
    assert record.scorecard is not None
    assert record.scorecard.looks == looks
    assert looks[-1].decision == "refused"
    assert record.scorecard.n == looks[-1].n == len(images.before) == len(record.seeds)
    assert (images.guards, record.guards) == ((), ())
    assert "no guard images lost" not in {check.name for check in record.scorecard.verdict.reasons}
