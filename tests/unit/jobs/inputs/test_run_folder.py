"""Where a run keeps its things."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corrector.errors import UserError
from jobs.inputs.run_folder import RunFolder, write_json


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", ".hidden", "x" * 101, "cache", "registry"])
def test_a_run_id_cannot_leave_the_storage_or_take_a_shared_folders_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="run id"):
        RunFolder(tmp_path, name)


def test_the_same_work_has_the_same_folder_and_other_work_another(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "people")
    assert run.prompt("lying", "a" * 64) == run.prompt("lying", "a" * 64)
    assert run.prompt("lying", "a" * 64) != run.prompt("lying", "b" * 64)


def test_a_storage_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--storage"):
        RunFolder(tmp_path / "file", "people").create()


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"prompts": [1]})
    with pytest.raises(TypeError):
        write_json(path, {"prompts": object()})
    assert json.loads(path.read_text()) == {"prompts": [1]}
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]
