"""A local registry can be moved and copied: each keeps to its own folder, and nothing outside of it is deleted."""

import shutil
import tarfile
from datetime import timedelta
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service import utils

from corrector.record.correction_record import WEIGHTS_FILE, CorrectionRecord
from corrector.registry import RegistryError, fetch, local_uri, promote, register
from corrector.registry.__main__ import main
from corrector.registry.garbage import collect_garbage
from corrector.registry.listing import find_version, show_model
from corrector.registry.references import Reference
from corrector.registry.restore import find_works, restore_record
from corrector.registry.review_log import history
from corrector.registry.verify import verify
from tests.support.registering import NAME, Registering, write_work

GOLDEN = Path(__file__).parent / "golden" / "runs_of_271529c.tar.xz"
"""A registry and two record folders, written by commit 271529c; see golden/README.md."""
NOW = timedelta(0)


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """The folder with what commit 271529c wrote, unpacked elsewhere than it was written."""
    with tarfile.open(GOLDEN) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "runs-of-271529c"


def problems(root: Path) -> list[str | None]:
    return [checked.problem for checked in verify(tracking_uri=None, root=root)]


def client_of(root: Path) -> MlflowClient:
    utils._artifact_repos_cache.clear()  # it goes by the run alone, which a copy has, too
    return MlflowClient(local_uri(root), local_uri(root))


def test_garbage_of_a_copy_is_removed_there_and_the_original_keeps_everything(
    registered: Registering, root: Path, tmp_path: Path
) -> None:
    _, second = registered.all(1, 2)
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    client_of(copy).delete_model_version(NAME, "2")
    assert main(["--root", str(copy), "gc", "--delete", "--older-than", "0m"]) == 0
    assert problems(root) == [None, None]
    assert problems(copy) == [None]
    assert not (copy / "artifacts" / second.run_id / "artifacts").exists()


def test_a_copied_database_that_is_used_like_a_server_deletes_nothing_of_the_original(
    registered: Registering, root: Path, tmp_path: Path
) -> None:
    """Its tables name the original's folder, and there is no root to look below instead."""
    registered.all(1, 2)
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    client_of(copy).delete_model_version(NAME, "2")
    with pytest.raises(
        RegistryError,
        match=r": is outside of the registry in .*copy, which was moved or copied; open it with --root",
    ):
        collect_garbage(tracking_uri=local_uri(copy), root=tmp_path, older_than=NOW, delete=True)
    assert problems(root) == [None, None]


def test_a_moved_registry_works_at_its_new_place_only(
    registered: Registering, root: Path, tmp_path: Path
) -> None:
    first, _ = registered.all(1, 2)
    moved = root.rename(tmp_path / "moved")
    assert problems(moved) == [None, None]
    promote(NAME, 1, who="Ada", tracking_uri=None, root=moved)
    third = register(write_work(tmp_path / "record-3", 3), tracking_uri=None, root=moved)
    assert fetch(NAME, 3, tmp_path / "here", tracking_uri=None, root=moved).is_dir()
    assert (moved / "artifacts" / third.run_id / "artifacts" / "record.json").is_file()
    assert not root.exists()
    mlflow = client_of(moved)
    for run_id in (first.run_id, third.run_id):
        assert Path(mlflow.download_artifacts(run_id, f"model/adapter_weights/{WEIGHTS_FILE}")).is_file()


def test_what_commit_271529c_wrote_is_read_reviewed_and_continued(former: Path, tmp_path: Path) -> None:
    root = former / "registry"
    assert [version.number for version in show_model(NAME, tracking_uri=None, root=root)] == [
        "3",
        "2",
        "1",
    ]
    assert find_version(Reference(NAME), tracking_uri=None, root=root).number == "2"
    assert problems(root) == [None] * 3
    assert [entry.who for entry in history(NAME, tracking_uri=None, root=root)] == ["ada", "ada"]
    assert main(["--root", str(root), "rollback", NAME, "--why", "third legs"]) == 0
    assert fetch(NAME, "champion", tmp_path / "here", tracking_uri=None, root=root).is_dir()
    known = find_works({"work-3": NAME}, tracking_uri=None, root=root)
    restored = restore_record(known["work-3"], tmp_path / "back", tracking_uri=None, root=root)
    assert CorrectionRecord.load(restored).status == "rejected"
    assert register(restored, tracking_uri=None, root=root).version == "3"
    assert register(write_work(tmp_path / "r", 5), tracking_uri=None, root=root).version == "4"
    assert collect_garbage(tracking_uri=None, root=root, older_than=NOW, delete=True) == []
    assert problems(root) == [None] * 4


def test_record_folders_of_commit_271529c_are_read_and_registered(former: Path, root: Path) -> None:
    record = CorrectionRecord.load(former / "record-1")
    record.verify(former / "record-1")
    images = CorrectionRecord.images(former / "record-1")
    assert (len(images.before), len(images.after), len(images.guards)) == (2, 2, 2)
    assert register(former / "record-1", tracking_uri=None, root=root).sha256 == record.adapter_sha256
    failed = CorrectionRecord.load(former / "record-4")
    assert failed.error
    assert register(former / "record-4", tracking_uri=None, root=root).version is None


def test_a_database_without_its_artifacts_is_refused_by_name(
    registered: Registering, root: Path, tmp_path: Path
) -> None:
    registered(1)
    former = (root / "artifacts").as_uri()
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(root / "mlflow.db", half)
    with pytest.raises(
        RegistryError, match=f"half: was copied from a registry whose artifacts are in {former}"
    ):
        register(tmp_path / "record-1", tracking_uri=None, root=half)
    with pytest.raises(
        RegistryError, match=r"missing; it was recorded in file:.*this registry is now .*half: copy"
    ):
        fetch(NAME, 1, tmp_path / "here", tracking_uri=None, root=half)
    shutil.copytree(root / "artifacts", half / "artifacts")
    assert register(tmp_path / "record-1", tracking_uri=None, root=half).version == "1"


def test_an_experiment_in_s3_is_not_taken_for_a_local_registry(root: Path, tmp_path: Path) -> None:
    client_of(root).create_experiment("corrections", artifact_location="s3://bucket/artifacts")
    with pytest.raises(
        RegistryError, match='the experiment "corrections" keeps its artifacts in s3://bucket'
    ):
        register(write_work(tmp_path / "r", 1), tracking_uri=None, root=root)
    assert not (root / "artifacts").exists()


def test_artifacts_behind_a_link_that_leads_out_are_not_deleted(
    registered: Registering, root: Path, tmp_path: Path
) -> None:
    registered(1)
    outside = (root / "artifacts").rename(tmp_path / "outside")
    (root / "artifacts").symlink_to(outside)
    client_of(root).delete_model_version(NAME, "1")
    with pytest.raises(RegistryError, match=r": is outside of the registry in .*; not deleted"):
        collect_garbage(tracking_uri=None, root=root, older_than=NOW, delete=True)
    assert list(outside.rglob(WEIGHTS_FILE))


def test_a_folder_of_another_experiments_run_is_no_garbage(root: Path) -> None:
    client = client_of(root)
    location = (root / "artifacts").as_uri()
    run = client.create_run(client.create_experiment("mine", artifact_location=location))
    client.log_text(run.info.run_id, "kept", "notes.txt")
    assert collect_garbage(tracking_uri=None, root=root, older_than=NOW, delete=True) == []
    assert (root / "artifacts" / run.info.run_id / "artifacts" / "notes.txt").is_file()
