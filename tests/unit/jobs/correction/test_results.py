"""The results of a run are read once and kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from jobs.correction.results import Results
from jobs.correction.scoring import ScoringSettings, write_failure
from jobs.inputs.batch import check_batch
from tests.support.batches import write_batch
from tests.support.records import Status, write_record
from tests.world.scenes import Scene


def test_a_prompt_that_settles_does_not_make_the_records_of_the_others_be_read_again(
    tmp_path: Path, small_sd3: Path
) -> None:
    work = check_batch(write_batch(tmp_path, small_sd3), storage=tmp_path / "runs")
    settings = ScoringSettings(work.spec, work.batch.evaluation, work.batch.gate, "abc")
    results = Results(work)
    person, dog = work.tasks
    assert results[person].status == "unfinished"

    write_failure(person, settings, "it diverged")
    assert results.settle(person, None).error == "it diverged"
    shutil.rmtree(person.folder.place.disk)
    results.settle(dog, "registration failed: nobody answers")
    assert results.write().exit_status == 1

    written = json.loads(work.run.result.path.read_text())["prompts"]
    assert [(each["status"], each["error"], each["worked"]) for each in written] == [
        ("failed", "it diverged", True),
        ("unfinished", "registration failed: nobody answers", True),
    ]


def test_a_result_has_the_grade_and_the_number_of_images(tmp_path: Path, small_sd3: Path) -> None:
    work = check_batch(write_batch(tmp_path, small_sd3), storage=tmp_path / "runs")
    results = Results(work)
    statuses: tuple[Status, ...] = ("corrected", "rejected")
    for task, status in zip(work.tasks, statuses, strict=True):
        write_record(
            task.folder.record.path, Scene("dog", "sitting", "beach"), status, pairs=3, guard_images=1
        )
        results.settle(task, None)
    assert [(each.grade, each.images) for each in results.write().prompts] == [("improved", 3), (None, 3)]
