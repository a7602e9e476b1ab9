"""The folders of a run, and the lock that keeps a second submission out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from corrector.errors import UserError
from corrector.files import replace_folder
from corrector.storage import Storage
from jobs.inputs.run_folder import RunFolder, read_json, write_json
from jobs.inputs.run_lock import locked
from tests.support.lock_holder import lock_held


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", ".hidden", "x" * 101, "cache", "registry"])
def test_a_run_id_cannot_leave_the_storage_or_take_a_shared_folders_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="run id"):
        RunFolder(tmp_path, name)


def test_the_same_work_has_the_same_folder_and_other_work_another(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "people")
    assert run.prompt("lying", "a" * 64).place == run.prompt("lying", "a" * 64).place
    assert run.prompt("lying", "a" * 64).place != run.prompt("lying", "b" * 64).place


def test_a_storage_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--storage"):
        RunFolder(tmp_path / "file", "people").create()


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    file = Storage.of(tmp_path).file("result.json")
    write_json(file, {"prompts": [1]})
    with pytest.raises(TypeError):
        write_json(file, {"prompts": object()})
    assert read_json(file) == {"prompts": [1]}
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]


def test_a_run_is_locked_by_one_job_until_that_dies(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "people")
    ray_job = json.dumps({"metadata": {"job_submission_id": "raysubmit_1"}})
    with (
        lock_held(str(tmp_path), RAY_JOB_CONFIG_JSON_ENV_VAR=ray_job) as holder,
        pytest.raises(UserError, match=rf"job raysubmit_1 \(process {holder.pid} on .* --run-id"),
        locked(run),
    ):
        pass
    with locked(run):
        assert read_json(run.place.file("owner.json"))["process"] == os.getpid()
    assert not run.place.file("owner.json").exists()


def test_a_folder_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    place, new = tmp_path / "record", tmp_path / "sampled"
    place.mkdir()
    (place / "old").touch()
    with pytest.raises(FileNotFoundError):
        replace_folder(new, place)
    assert [path.name for path in place.iterdir()] == ["old"]

    new.mkdir()
    replace_folder(new, place)
    assert [path.name for path in tmp_path.iterdir()] == ["record"]
    assert list(place.iterdir()) == []
