"""Registering is exactly-once, aliases follow the gate, and an adapter comes back with its own bytes."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from corrector.evaluation import Scorecard
from corrector.exemplars.provenance import ExemplarSource
from corrector.record.correction_record import CONFIG_FILE, WEIGHTS_FILE, CorrectionRecord, RecordError
from corrector.registry import OtherBytes, RegistryError, fetch, model_name, register
from corrector.registry.local_models import LocalModels
from corrector.registry.store import Store
from tests.support.records import write_record
from tests.support.registering import NAME, PERSON, Registering


@pytest.fixture
def corrected(tmp_path: Path) -> Path:
    write_record(tmp_path / "corrected", PERSON, pairs=2, guard_images=1, steps=20)
    (tmp_path / "corrected" / "review.html").write_text("<p>before and after</p>")
    return tmp_path / "corrected"


def test_a_corrected_prompt_becomes_a_candidate_with_its_lineage(
    root: Path, corrected: Path, client: MlflowClient
) -> None:
    record = CorrectionRecord.load(corrected)
    version = register(corrected, tracking_uri=None, root=root)
    assert (version.name, version.version, version.aliases) == (NAME, "1", ("candidate",))
    assert version.sha256 == record.adapter_sha256
    found = client.get_model_version_by_alias(NAME, "candidate")
    assert found.run_id == version.run_id
    assert found.tags["work_id"] == record.work_id
    assert found.tags["base_revision"] == record.base_revision
    assert client.search_model_versions("tags.grade = 'improved'")[0].version == found.version
    assert "how many images are right" in found.description
    assert found.tags["lineage.code_version"] == "0.1.0+4f2a91c"
    assert json.loads(found.tags["lineage.exemplars"]) == record.lineage["exemplars"]


def test_a_version_is_found_by_the_sources_of_its_exemplars(
    root: Path, corrected: Path, tmp_path: Path, client: MlflowClient
) -> None:
    version = register(corrected, tracking_uri=None, root=root)
    write_record(tmp_path / "older", PERSON, pairs=1, guard_images=1, work_id="older", exemplars=())
    older = register(tmp_path / "older", tracking_uri=None, root=root)
    (found,) = client.search_model_versions("tags.exemplar_sources LIKE '%generated%'")
    assert str(found.version) == version.version
    assert {name: value for name, value in found.tags.items() if name.startswith("exemplar")} == {
        "exemplars": "2",
        "exemplars_dropped": "1",
        "exemplar_sources": "folder, generated",
        "exemplar_models": "gpt-image-1",
        "exemplar_dollars": "0.08",
        "exemplars_decided_by": "Ana, Bea",
    }
    listed = Path(client.download_artifacts(version.run_id, "exemplars.json")).read_text()
    kept = [ExemplarSource.model_validate(each) for each in json.loads(listed)["exemplars"]]
    assert kept == list(CorrectionRecord.load(corrected).exemplars)
    without = client.get_model_version(NAME, str(older.version)).tags
    assert not [name for name in without if name.startswith("exemplar")]


def test_its_run_holds_parameters_curves_scores_and_images(
    root: Path, corrected: Path, client: MlflowClient
) -> None:
    record = CorrectionRecord.load(corrected)
    run = client.get_run(register(corrected, tracking_uri=None, root=root).run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["rank"] == "8"
    assert run.data.params["prompt"] == record.prompt
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [
        (point.step, point.loss) for point in record.curve
    ]
    assert run.data.metrics["seconds.training"] == 61.4
    files = {
        item.path
        for folder in ("", "model", "model/adapter_weights")
        for item in client.list_artifacts(run.info.run_id, folder)
    }
    assert {
        "record.json",
        "scorecard.json",
        "before_after.png",
        "entry.json",
        "review.html",
        "model/MLmodel",
        "model/README.md",
        f"model/adapter_weights/{WEIGHTS_FILE}",
        "images.zip",
    } <= files
    scorecard = Path(client.download_artifacts(run.info.run_id, "scorecard.json")).read_text()
    assert Scorecard.model_validate_json(scorecard) == record.scorecard
    assert run.data.metrics["fid_opennsfw_difference"] == -80.0
    assert run.data.metrics["false_route_drop"] == 0.5


def test_a_rejected_prompt_is_registered_without_alias_and_with_reasons(
    root: Path, tmp_path: Path, client: MlflowClient
) -> None:
    write_record(tmp_path / "r", PERSON, "rejected", pairs=2, guard_images=1)
    version = register(tmp_path / "r", tracking_uri=None, root=root)
    assert (version.version, version.aliases) == ("1", ())
    found = client.get_model_version(NAME, "1")
    assert "not passed" in found.description
    assert "grade" not in found.tags


def test_a_failed_prompt_has_a_failed_run_and_no_version(
    root: Path, tmp_path: Path, client: MlflowClient
) -> None:
    record = write_record(tmp_path / "f", PERSON, "failed")
    failed = register(tmp_path / "f", tracking_uri=None, root=root)
    assert (failed.version, failed.sha256, failed.aliases) == (None, None, ())
    run = client.get_run(failed.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == record.error
    assert client.search_registered_models() == []


def test_each_failure_has_one_run(root: Path, tmp_path: Path, client: MlflowClient) -> None:
    write_record(tmp_path / "f", PERSON, "failed")
    first = register(tmp_path / "f", tracking_uri=None, root=root)
    assert register(tmp_path / "f", tracking_uri=None, root=root) == first
    write_record(tmp_path / "f", PERSON, "failed", created=datetime(2026, 3, 5, tzinfo=UTC))
    assert register(tmp_path / "f", tracking_uri=None, root=root).run_id != first.run_id


def test_the_same_work_succeeds_after_it_failed(root: Path, tmp_path: Path, corrected: Path) -> None:
    write_record(tmp_path / "f", PERSON, "failed")
    failed = register(tmp_path / "f", tracking_uri=None, root=root)
    version = register(corrected, tracking_uri=None, root=root)
    assert version.version == "1"
    assert version.run_id != failed.run_id


STEPS = (
    (MlflowClient, "create_experiment"), (MlflowClient, "create_run"), (MlflowClient, "log_batch"),
    (Store, "log_file"), (MlflowClient, "set_terminated"), (MlflowClient, "create_registered_model"),
    (MlflowClient, "create_model_version"), (LocalModels, "set_alias"), (LocalModels, "set_version_tag"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("when", "owner", "step"),
    # Before any other step is after the one before it; these two are the first of several calls.
    [*(("after", *step) for step in STEPS), ("before", *STEPS[3]), ("before", *STEPS[4])],
)
def test_a_crash_anywhere_ends_in_one_run_and_one_version(
    root: Path,
    corrected: Path,
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    step: str,
    when: str,
) -> None:
    """The call dies as a killed process would leave it."""

    class Killed(BaseException):
        pass

    method: Callable[..., Any] = getattr(owner, step)

    def dying(*arguments: Any, **options: Any) -> Any:
        if when == "after":
            method(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, dying)
        with pytest.raises(Killed):
            register(corrected, tracking_uri=None, root=root)
    version = register(corrected, tracking_uri=None, root=root)
    assert version == register(corrected, tracking_uri=None, root=root)
    assert (version.version, version.aliases) == ("1", ("candidate",))
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 1
    runs = client.search_runs([client.get_experiment_by_name("corrections").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"]
    history = client.get_metric_history(version.run_id, "loss")
    assert [point.step for point in history] == [5, 10, 15, 20], "the curve is doubled or cut"


def test_registering_again_moves_no_alias_that_a_reviewer_moved(
    registered: Registering, root: Path, tmp_path: Path, client: MlflowClient
) -> None:
    registered(1)
    client.delete_registered_model_alias(NAME, "candidate")
    client.set_registered_model_alias(NAME, "champion", "1")
    assert register(tmp_path / "record-1", tracking_uri=None, root=root).aliases == ("champion",)


def test_a_full_disk_in_the_middle_leaves_no_version(
    root: Path, corrected: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "artifacts")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "log_file", full)
        with pytest.raises(RegistryError, match="No space left on device; make room"):
            register(corrected, tracking_uri=None, root=root)
    assert client.search_registered_models() == []
    assert register(corrected, tracking_uri=None, root=root).version == "1"


def test_other_bytes_for_the_same_work_are_refused_and_change_nothing(
    root: Path, corrected: Path, tmp_path: Path, client: MlflowClient
) -> None:
    first = register(corrected, tracking_uri=None, root=root)
    other = write_record(tmp_path / "other", PERSON, "rejected", pairs=2, guard_images=1)
    with pytest.raises(OtherBytes, match=f"{NAME}/1: holds this work.*{other.adapter_sha256}") as refused:
        register(tmp_path / "other", tracking_uri=None, root=root)
    assert refused.value.registered == first
    assert register(corrected, tracking_uri=None, root=root) == first
    assert len(client.search_model_versions()) == 1
    client.delete_model_version(NAME, "1")
    assert register(tmp_path / "other", tracking_uri=None, root=root).version == "2"


def test_mlflow_reports_to_nobody(root: Path) -> None:
    """In a process of its own, since MLflow never reports from under pytest."""
    program = (
        "import sys; from pathlib import Path; from corrector.registry import prepare\n"
        "prepare(None, Path(sys.argv[1]))\n"
        "from mlflow.telemetry import get_telemetry_client; print(get_telemetry_client())"
    )
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTEST_CURRENT_TEST", "CI")
    }
    printed = subprocess.check_output([sys.executable, "-c", program, root], text=True, env=environment)
    assert printed == "None\n"


def test_an_adapter_comes_back_by_alias_and_by_version(
    registered: Registering, root: Path, tmp_path: Path
) -> None:
    registered(1)
    for which in ("candidate", "1", 1):
        destination = tmp_path / "into" / f"{which!r}"
        folder = fetch(NAME, which, destination, tracking_uri=None, root=root)
        assert folder == destination
        for file in (WEIGHTS_FILE, CONFIG_FILE):
            assert (folder / file).read_bytes() == (tmp_path / "record-1" / "adapter" / file).read_bytes()
        assert fetch(NAME, which, folder, tracking_uri=None, root=root) == folder


def test_changed_bytes_are_refused_and_leave_nothing_behind(
    registered: Registering, root: Path, tmp_path: Path
) -> None:
    version = registered(1)
    (kept,) = root.glob(f"artifacts/{version.run_id}/artifacts/model/adapter_weights/{WEIGHTS_FILE}")
    kept.write_bytes(b"something else")
    with pytest.raises(RegistryError, match="SHA-256"):
        fetch(NAME, "1", tmp_path / "here", tracking_uri=None, root=root)
    kept.unlink()
    with pytest.raises(RegistryError, match=WEIGHTS_FILE):
        fetch(NAME, "1", tmp_path / "here", tracking_uri=None, root=root)
    assert [path.name for path in tmp_path.glob("*here*")] == []


def test_a_destination_with_other_content_is_not_touched(
    registered: Registering, root: Path, tmp_path: Path
) -> None:
    registered(1)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / WEIGHTS_FILE).write_bytes(b"mine")
    with pytest.raises(RegistryError, match="already there"):
        fetch(NAME, "1", tmp_path / "here", tracking_uri=None, root=root)
    assert (tmp_path / "here" / WEIGHTS_FILE).read_bytes() == b"mine"


def test_what_does_not_exist_is_a_users_error(registered: Registering, root: Path, tmp_path: Path) -> None:
    registered(1)
    for which in ("champion", "7"):
        with pytest.raises(RegistryError, match=f"{which} not found; it has version 1 and alias candidate"):
            fetch(NAME, which, tmp_path / "here", tracking_uri=None, root=root)


def test_a_folder_without_a_registry_is_not_made_one(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no registry here"):
        fetch(NAME, "1", tmp_path / "here", tracking_uri=None, root=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_record_with_changed_weights_is_not_registered(
    root: Path, corrected: Path, client: MlflowClient
) -> None:
    (corrected / "adapter" / WEIGHTS_FILE).write_bytes(b"something else")
    with pytest.raises(RecordError, match="SHA-256"):
        register(corrected, tracking_uri=None, root=root)
    assert client.search_registered_models() == []


def test_hostile_text_is_kept_as_text(root: Path, tmp_path: Path, client: MlflowClient) -> None:
    prompt = "<script>alert(1)</script> [x](javascript:alert(1)) ' or 1=1 --\n" + "ü" * 9000
    write_record(tmp_path / "h", PERSON, pairs=1, guard_images=1, prompt=prompt, name="../../etc/päss:wd")
    version = register(tmp_path / "h", tracking_uri=None, root=root)
    assert "/" not in version.name
    assert version == register(tmp_path / "h", tracking_uri=None, root=root)
    found = client.get_model_version(version.name, "1")
    assert "<script>" not in found.description
    assert "](javascript" not in found.description
    assert found.tags["prompt"] == prompt[:4996] + " […]"


def test_model_names_keep_slugs_and_never_meet() -> None:
    assert model_name("a-person-lying") == "a-person-lying"
    odd = ["a/person", "a:person", "a-person", "A-person", "..", "", "ü", "x" * 400, "x" * 401]
    names = [model_name(name) for name in odd]
    assert len(set(names)) == len(odd)
    assert all(name and not set(name) & set("/:'\" ") and len(name) <= 160 for name in names)
