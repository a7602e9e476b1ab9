"""Every version's bytes can be checked, and what interrupted registrations leave is found and removed; nothing else is."""

from datetime import timedelta
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from corrector.record.correction_record import WEIGHTS_FILE
from corrector.registry import RegistryError, register
from corrector.registry.garbage import collect_garbage
from corrector.registry.mlflow_run import BEGAN
from corrector.registry.store import Store
from corrector.registry.verify import verify
from tests.support.records import write_record
from tests.support.registering import NAME, PERSON, Registering

NOW = timedelta(0)


def kinds(root: Path, *, older_than: timedelta = NOW, delete: bool = False) -> list[str]:
    found = collect_garbage(tracking_uri=None, root=root, older_than=older_than, delete=delete)
    return sorted(leftover.kind for leftover in found)


def interrupt(monkeypatch: pytest.MonkeyPatch, step: str, folder: Path, root: Path) -> None:
    """Register until `step`, where the process dies."""

    class Killed(BaseException):
        pass

    def dying(*_: object, **__: object) -> None:
        raise Killed

    owner = Store if step == "log_file" else MlflowClient
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, dying)
        with pytest.raises(Killed):
            register(folder, tracking_uri=None, root=root)


def test_every_version_is_read_and_the_damaged_are_named(registered: Registering, root: Path) -> None:
    first, second, third = registered.all(1, (2, "rejected"), 3)
    seen: list[tuple[str, int]] = []
    found = verify(
        tracking_uri=None,
        root=root,
        progress=lambda checked, total: seen.append((str(checked.version), total)),
    )
    assert [checked.problem for checked in found] == [None] * 3
    assert sorted(seen) == [(f"{NAME}/{number}", 3) for number in (1, 2, 3)]
    assert all(checked.bytes > 2000 for checked in found)

    def weights(run_id: str) -> Path:
        return root / "artifacts" / run_id / "artifacts" / "model" / "adapter_weights" / WEIGHTS_FILE

    weights(second.run_id).write_bytes(b"half")
    weights(third.run_id).unlink()
    problems = {
        checked.version.number: checked.problem for checked in verify([NAME], tracking_uri=None, root=root)
    }
    assert problems["1"] is None
    assert first.sha256
    assert "SHA-256 is" in (problems["2"] or "")
    assert "missing" in (problems["3"] or "")


def test_a_source_that_leads_elsewhere_is_not_followed(
    registered: Registering, root: Path, client: MlflowClient
) -> None:
    version = registered(1)
    client.create_model_version(
        NAME, f"runs:/{version.run_id}/model/../../other", version.run_id,
        tags={"adapter_sha256": "0" * 64, "registration": "complete"},
    )  # fmt: skip
    problems = [checked.problem for checked in verify(tracking_uri=None, root=root) if checked.problem]
    assert len(problems) == 1
    assert "its source is" in problems[0]


def test_an_unknown_name_is_not_verified_silently(registered: Registering, root: Path) -> None:
    registered(1)
    with pytest.raises(RegistryError, match="unheard-of: not found"):
        verify(["unheard-of"], tracking_uri=None, root=root)


def test_a_registry_in_order_holds_no_garbage(registered: Registering, root: Path, tmp_path: Path) -> None:
    registered.all(1, (2, "rejected"))
    write_record(tmp_path / "f", PERSON, "failed")
    register(tmp_path / "f", tracking_uri=None, root=root)
    assert kinds(root, delete=True) == []
    assert all(checked.problem is None for checked in verify(tracking_uri=None, root=root))


@pytest.mark.parametrize("step", ["log_batch", "log_file", "set_terminated", "create_model_version"])
def test_an_interrupted_run_is_found_removed_and_the_work_can_be_registered_anew(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_record(tmp_path / "r", PERSON, pairs=2, guard_images=1, steps=10)
    interrupt(monkeypatch, step, tmp_path / "r", root)
    assert kinds(root, older_than=timedelta(hours=1)) == []
    assert kinds(root) == ["run"]
    assert kinds(root, delete=True) == ["run"]
    assert kinds(root) == []
    assert list((root / "artifacts").glob("*/artifacts/*")) == []
    assert register(tmp_path / "r", tracking_uri=None, root=root).version == "1"


def test_a_version_that_lost_is_found_and_the_first_stays(
    registered: Registering, root: Path, client: MlflowClient
) -> None:
    version = registered(1)
    tags = {
        key: value for key, value in client.get_model_version(NAME, "1").tags.items() if key != "registration"
    }
    client.create_model_version(NAME, version.source, version.run_id, tags=tags)
    assert kinds(root, delete=True) == ["version"]
    assert [found.version for found in client.search_model_versions()] == [1]
    assert kinds(root) == []


def test_an_alias_or_another_run_keeps_what_would_be_removed(
    registered: Registering, root: Path, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = registered(1)
    tags = {
        key: value for key, value in client.get_model_version(NAME, "1").tags.items() if key != "registration"
    }
    client.create_model_version(NAME, version.source, version.run_id, tags=tags)
    client.set_registered_model_alias(NAME, "mine", "2")
    assert kinds(root) == []
    write_record(tmp_path / "r", PERSON, pairs=2, guard_images=1, steps=10, work_id="parent")
    interrupt(monkeypatch, "create_model_version", tmp_path / "r", root)
    (orphan,) = collect_garbage(tracking_uri=None, root=root, older_than=NOW)
    client.set_tag(version.run_id, "lineage.parent_run", orphan.identity)
    assert kinds(root) == []


def test_artifacts_of_a_deleted_run_and_folders_of_none_are_found(
    root: Path, tmp_path: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(tmp_path / "r", PERSON, pairs=2, guard_images=1, steps=10)
    interrupt(monkeypatch, "create_model_version", tmp_path / "r", root)
    (orphan,) = collect_garbage(tracking_uri=None, root=root, older_than=NOW)
    client.delete_run(orphan.identity)
    (root / "artifacts" / "0123").mkdir()
    assert kinds(root, delete=True) == ["artifacts", "folder"]
    assert kinds(root) == []
    assert list((root / "artifacts").glob("*/artifacts/*")) == []


def test_runs_of_others_and_defaced_times_are_left_alone(
    root: Path, tmp_path: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(tmp_path / "r", PERSON, pairs=2, guard_images=1, steps=10)
    interrupt(monkeypatch, "create_model_version", tmp_path / "r", root)
    (orphan,) = collect_garbage(tracking_uri=None, root=root, older_than=NOW)
    client.create_run(client.get_experiment_by_name("corrections").experiment_id, run_name="mine")
    client.set_tag(orphan.identity, BEGAN, "<script>")
    assert kinds(root, delete=True) == []


def test_a_bound_in_the_future_is_refused(root: Path) -> None:
    with pytest.raises(RegistryError, match="no negative time"):
        collect_garbage(tracking_uri=None, root=root, older_than=-timedelta(days=1))
