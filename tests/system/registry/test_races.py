"""Processes that register at once, or are killed at any step, end in one version per work."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from mlflow.tracking import MlflowClient

from corrector.registry import local_uri
from corrector.registry.garbage import collect_garbage
from tests.support.racing import (
    NOWHERE,
    check_one_version_each,
    kill_at_steps,
    kill_while_tables_are_made,
    race,
    register_all,
    write_records,
)

STEPS = (
    "log_batch", "log_artifact", "set_terminated",
    "create_model_version", "set_registered_model_alias", "set_model_version_tag",
)  # fmt: skip


def test_four_processes_at_once_register_each_work_once(shared: str, tmp_path: Path) -> None:
    """The database is the only lock."""
    folders = write_records(tmp_path, 2)
    said = race(shared, folders, processes=4)
    assert said == [said[0]] * 4
    check_one_version_each(shared, folders)


def test_two_processes_at_once_make_one_local_registry(tmp_path: Path) -> None:
    """They also race to make its tables, where a third was killed over its own."""
    root = tmp_path / "registry"
    kill_while_tables_are_made(root)
    folders = write_records(tmp_path / "records", 2)
    said = race(None, folders, processes=2, root=root)
    assert said == [said[0]] * 2
    uri = local_uri(root)
    check_one_version_each(uri, folders)
    client = MlflowClient(uri, uri)
    assert len(client.search_runs([client.get_experiment_by_name("corrections").experiment_id])) == 2


def test_killed_at_any_step_and_started_again_it_registers_each_work_once(
    shared: str, tmp_path: Path
) -> None:
    folders = write_records(tmp_path, len(STEPS))
    kill_at_steps(shared, folders, STEPS)
    register_all(shared, folders)
    check_one_version_each(shared, folders)
    left = collect_garbage(tracking_uri=shared, root=NOWHERE, older_than=timedelta(0), delete=True)
    assert [garbage.kind for garbage in left] == ["run"] * 3, "of those killed before their run had ended"
    assert collect_garbage(tracking_uri=shared, root=NOWHERE, older_than=timedelta(0)) == []
    check_one_version_each(shared, folders)
