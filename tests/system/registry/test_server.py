"""The same against a real MLflow server, whose artifacts lie on a real S3 server: what works there, and what fails clearly."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from mlflow.tracking import MlflowClient

from cluster import ports
from cluster.mlflow_server import MlflowServer
from corrector.files import file_sha256
from corrector.record.correction_record import WEIGHTS_FILE
from corrector.registry import RegisteredVersion, RegistryError, fetch, local_uri, register
from corrector.registry.garbage import collect_garbage
from corrector.registry.listing import list_models
from corrector.registry.promotion import promote, rollback
from corrector.registry.restore import RESTORED_FILE, find_works, restore_record
from corrector.registry.review_log import history
from corrector.registry.verify import verify
from tests.support.racing import NOWHERE, check_settled
from tests.support.records import small_adapter, write_record
from tests.support.registering import PERSON, forget_s3
from tests.support.servers import use_mlflow


@pytest.fixture
def uri(mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server's address; MLflow's variables point there."""
    use_mlflow(mlflow_server, monkeypatch)
    return mlflow_server.tracking_uri


def record(folder: Path, name: str, seed: int = 1) -> Path:
    write_record(
        folder, PERSON, pairs=2, guard_images=1, steps=10, name=name, work_id=f"{name}-{seed}",
        adapter=small_adapter(f"{name}{seed}"),
    )  # fmt: skip
    return folder


def registered(folder: Path, uri: str) -> RegisteredVersion:
    return register(folder, tracking_uri=uri, root=NOWHERE)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its path, but for what only one of a written and a restored folder has."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != RESTORED_FILE and path.suffix != ".sha256"
    }


def test_an_adapter_goes_to_s3_through_the_server_and_comes_back(uri: str, tmp_path: Path) -> None:
    folder = record(tmp_path / "r", "there-and-back")
    (folder / "review.html").write_text("<p>before and after</p>")
    version = registered(folder, uri)
    assert (version.version, version.aliases) == ("1", ("candidate",))
    assert registered(folder, uri) == version
    here = fetch(version.name, "candidate", tmp_path / "here", tracking_uri=uri, root=NOWHERE)
    assert file_sha256(here / WEIGHTS_FILE) == version.sha256
    assert [checked.problem for checked in verify([version.name], tracking_uri=uri, root=NOWHERE)] == [None]
    works = find_works({"there-and-back-1": "there-and-back"}, tracking_uri=uri, root=NOWHERE)
    restored = restore_record(works["there-and-back-1"], tmp_path / "back", tracking_uri=uri, root=NOWHERE)
    assert contents(restored) == contents(folder)


def test_reviews_are_kept_by_the_server_and_moves_by_hand_are_seen(uri: str, tmp_path: Path) -> None:
    place: dict[str, Any] = {"tracking_uri": uri, "root": NOWHERE}
    for seed in (1, 2):
        registered(record(tmp_path / str(seed), "reviewed", seed), uri)
    promote("reviewed", 1, who="Ada", **place)
    MlflowClient(uri, uri).set_registered_model_alias("reviewed", "champion", "2")
    assert history("reviewed", **place)[-1].action == "moved"
    assert rollback("reviewed", who="Bob", why="third legs", **place).version == "1"
    (listed,) = list_models(containing="reviewed", **place).models
    assert listed.aliases == {"candidate": "2", "champion": "1"}
    assert [entry.who for entry in history("reviewed", **place)][-1] == "Bob"


def test_a_registry_that_is_down_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    nobody = f"http://user:hidden@127.0.0.1:{ports.choose('port', None, taken=set())}"
    folder = record(tmp_path / "r", "down")
    for attempt in (
        lambda: registered(folder, nobody),
        lambda: fetch("down", 1, tmp_path / "here", tracking_uri=nobody, root=NOWHERE),
    ):
        with pytest.raises(RegistryError, match=r"http://127\.0\.0\.1") as caught:
            attempt()
        assert "hidden" not in str(caught.value)
    assert not (tmp_path / "here").exists()


def test_s3_that_clients_write_to_and_that_fails_leaves_no_version(
    root: Path, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a registry without a server, whose experiment lies in S3; the next attempt succeeds."""
    bucket, uri = f"direct-{uuid4().hex}", local_uri(root)
    s3.create_bucket(Bucket=bucket)
    MlflowClient(uri, uri).create_experiment("corrections", artifact_location=f"s3://{bucket}/artifacts")
    folder = record(tmp_path / "r", "direct")
    for variable, value, expected in (
        ("AWS_SECRET_ACCESS_KEY", "wrong", "SignatureDoesNotMatch|Forbidden|AccessDenied"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "endpoint URL"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv("AWS_MAX_ATTEMPTS", "1")
            patch.setenv(variable, value)
            forget_s3(monkeypatch)
            with pytest.raises(RegistryError, match=expected):
                registered(folder, uri)
        assert list_models(tracking_uri=uri, root=NOWHERE).models == ()
    forget_s3(monkeypatch)
    version = registered(folder, uri)
    assert fetch(version.name, 1, tmp_path / "here", tracking_uri=uri, root=NOWHERE).is_dir()
    left = collect_garbage(tracking_uri=uri, root=NOWHERE, older_than=timedelta(0), delete=True)
    assert [garbage.kind for garbage in left] == ["run", "run"]
    assert verify(tracking_uri=uri, root=NOWHERE)[0].problem is None


def test_reviewers_race_and_settle(uri: str, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        registered(record(tmp_path / str(number), "raced-for", number), uri)
    at_once = Barrier(3)

    def decide(version: int) -> str:
        at_once.wait()
        try:
            promote(
                "raced-for", version, who=f"reviewer {version}", why="a race", tracking_uri=uri, root=NOWHERE
            )
        except RegistryError as error:
            return str(error)
        return "done"

    with ThreadPoolExecutor(3) as pool:
        for _ in range(2):
            told = list(pool.map(decide, range(1, 4)))
            assert all(said == "done" or "at the same moment" in said for said in told)
            check_settled(uri, "raced-for")
