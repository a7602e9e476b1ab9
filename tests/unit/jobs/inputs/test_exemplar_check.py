"""A job refuses exemplars that are not effective before it trains, unless it is told otherwise."""

import json
from pathlib import Path

import pytest

from corrector.base import ContentCache
from corrector.errors import UserError
from corrector.exemplars.curation import Decisions
from corrector.exemplars.provenance import used_digests
from jobs.inputs.batch import check_batch
from jobs.inputs.encoding import Share, encode
from tests.support.batches import write_batch


def test_a_set_of_too_few_images_is_refused_by_name(tmp_path: Path, small_sd3: Path) -> None:
    path = write_batch(tmp_path, small_sd3, names=("person",))
    for image in sorted((tmp_path / "person").iterdir())[3:]:
        image.unlink()
    work = check_batch(path, storage=tmp_path / "runs", accept_exemplars=False)
    work.store_exemplars(work.tasks)
    share = Share((), work.tasks)
    with pytest.raises(UserError, match=r"person: the exemplars are not effective\n  number: .*3 images"):
        encode(work.spec, share, work.run.cache, "cpu", 1, decisions=work.decisions)
    assert work.check_exemplars
    assert not check_batch(path, storage=tmp_path / "runs", accept_exemplars=True).check_exemplars
    encode(work.spec, share, work.run.cache, "cpu", 1, decisions=None)
    assert work.tasks[0].load_exemplars(ContentCache(work.run.cache)).training.shape[0] == 2


def test_decisions_leave_exemplars_out_and_are_part_of_the_work(tmp_path: Path, small_sd3: Path) -> None:
    path = write_batch(tmp_path, small_sd3, names=("person",))
    whole = check_batch(path, storage=tmp_path / "runs").tasks[0]
    digest = whole.sources[0].sha256
    decisions = tmp_path / "decisions.json"
    decisions.write_text(
        json.dumps({"decisions": {digest: {"decision": "drop", "by": "Ana", "why": "three legs"}}})
    )
    work = check_batch(path, storage=tmp_path / "runs", decisions=Decisions.load(decisions))
    (task,) = work.tasks
    assert {each.sha256: str(each.decision) for each in task.sources if not each.is_used} == {
        digest: "by Ana: three legs"
    }
    assert len(used_digests(task.sources)) == 15
    assert task.work_id != whole.work_id
