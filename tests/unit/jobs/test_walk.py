"""One prompt through the six shapes that jobs/README.md lists, in this process."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

from corrector.dreambooth import FineTune
from corrector.loaded_base import Base
from corrector.prompt_inputs import fine_tune, texts_of
from corrector.prompts import FailingPrompt
from corrector.record.correction_record import CorrectionRecord
from corrector.registry import register
from jobs.correction.results import PromptResult, Results
from jobs.correction.sampling import CorrectionPolicy
from jobs.correction.scoring import ScoringSettings, score_prompt
from jobs.inputs.batch import check_batch
from jobs.inputs.encoding import encode, split
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import write_json
from jobs.lanes.lane import Lane, LaneSettings
from jobs.lanes.queue import Progress, PromptQueue
from tests.support.batches import write_batch
from tests.support.lanes import LocalClient


def test_a_prompt_travels_from_the_batch_file_to_its_result(
    tmp_path: Path, small_sd3: Path, empty_registry: Path
) -> None:
    work = check_batch(
        write_batch(tmp_path, small_sd3, names=("person",)), storage=tmp_path / "runs", run="walk"
    )
    (entry,), (task,) = work.batch.prompts, work.tasks
    assert isinstance(entry, FailingPrompt)
    assert isinstance(task, PromptTask)
    assert task.entry is entry

    shutil.copytree(empty_registry, work.run.registry)
    work.run.create()
    work.store_exemplars(work.tasks)
    for share in split(work.tasks, work.batch.evaluation, 1):
        encode(work.spec, share, work.run.cache, "cpu", 1)

    settings = LaneSettings(slots=1, rank=2, cache=work.run.cache, evaluation=work.batch.evaluation)
    queue = PromptQueue(work.tasks)
    lane = Lane(work.spec, LocalClient(queue), settings, CorrectionPolicy)
    prepared = of_lane(lane.base, task, settings)
    assert isinstance(prepared, FineTune)
    assert prepared.name == task.work_id
    lane.run()
    (progress,) = queue.snapshot()
    assert isinstance(progress, Progress)
    assert (progress.work_id, progress.state) == (task.work_id, "sampled")

    score_prompt(task, ScoringSettings(work.spec, work.batch.evaluation, work.batch.gate, "abc"))
    record = CorrectionRecord.load(task.folder.record.path)
    assert (record.work_id, len(record.curve)) == (task.work_id, prepared.hyperparameters.steps)

    registered = register(task.folder.record.path, tracking_uri=None, root=work.run.registry)
    write_json(task.folder.registration, asdict(registered))
    result = Results(work).settle(task, None)
    assert isinstance(result, PromptResult)
    assert result.status == record.status
    assert result.adapter == registered
    assert registered.sha256 == record.adapter_sha256


def of_lane(base: Base, task: PromptTask, settings: LaneSettings) -> FineTune:
    """The fine-tune of `task` as a lane prepares it."""
    assert base.cache is not None
    embeddings = base.encode(texts_of(task.entry, settings.evaluation))
    exemplars = task.load_exemplars(base.cache)
    return fine_tune(task.entry, exemplars, embeddings, base, name=task.work_id)
