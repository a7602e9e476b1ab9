"""A real MLflow server whose real S3 fails, or holds what should not be there: a clear error, no harm, then success."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.config import Config
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from cluster import mlflow_server as servers
from cluster import object_store as stores
from cluster import ports
from cluster.mlflow_server import MlflowOptions
from cluster.object_store import ObjectStore
from cluster.object_store_configuration import REGION
from corrector.files import file_sha256
from corrector.record.correction_record import CONFIG_FILE, WEIGHTS_FILE
from corrector.registry import RegisteredVersion, RegistryError, fetch, local_uri, register
from corrector.registry.garbage import collect_garbage
from corrector.registry.listing import find_version, list_models
from corrector.registry.references import Reference
from corrector.registry.store import open_store
from corrector.registry.verify import verify
from tests.support.faulty_proxy import FaultyProxy
from tests.support.racing import NOWHERE
from tests.support.records import small_adapter, write_record
from tests.support.registering import PERSON, forget_s3
from tests.support.servers import use_object_store
from tests.support.small_disk import SmallDisk

MIB = 1024**2
DISK_BYTES = 128 * MIB
BUCKET = "mlflow"
WEIGHTS = f"model/adapter_weights/{WEIGHTS_FILE}"
CONFIG = f"model/adapter_weights/{CONFIG_FILE}"
SMALL, ONE_PART, PARTS = 8, 48, 130
"""Ranks: boto3 uploads the weights of the last, which are over 8 MiB, in parts."""


@dataclass(frozen=True)
class Servers:
    """An MLflow server that reaches its S3 through `proxy`; `s3` reaches it directly.

    `disk` holds the objects, and `database` is MLflow's.
    """

    uri: str
    proxy: FaultyProxy
    store: ObjectStore
    s3: Any
    disk: SmallDisk
    database: Path

    def mend(self) -> None:
        """Put everything in order again."""
        self.disk.free()
        self.proxy.mend()

    def kept(self) -> dict[str, set[str]]:
        """Run -> the paths of its artifacts that are in S3."""
        found: dict[str, set[str]] = {}
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for item in page.get("Contents", []):
                _, run, _, path = item["Key"].split("/", 3)
                found.setdefault(run, set()).add(path)
        return found

    def uploads(self) -> set[str]:
        """The runs of whose artifacts S3 holds parts of an upload that was not finished."""
        found = self.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return {upload["Key"].split("/")[1] for upload in found}

    def key(self, version: RegisteredVersion, path: str) -> str:
        """The key of one of a version's artifacts."""
        address = MlflowClient(self.uri, self.uri).get_run(version.run_id).info.artifact_uri
        return f"{address.removeprefix('mlflow-artifacts:/')}/{path}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers, started once; the server asks S3 once and then gives up."""
    state = tmp_path_factory.mktemp("faults")
    with SmallDisk(tmp_path_factory.mktemp("disk"), DISK_BYTES) as disk:
        objects = disk.folder / "objects"
        store = stores.start(state=objects)
        try:
            with FaultyProxy(store.endpoint) as proxy:
                options = MlflowOptions(
                    port=ports.choose("port", None, taken=set()), store=replace(store, port=proxy.port)
                )
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv("AWS_MAX_ATTEMPTS", "1")
                    server = servers.start(options, state=state / "mlflow")
                try:
                    database = state / "mlflow" / "mlflow.db"
                    yield Servers(server.tracking_uri, proxy, store, client_of(store), disk, database)
                finally:
                    servers.stop(server, state=state / "mlflow")
        finally:
            stores.stop(store, state=objects)


def client_of(store: ObjectStore) -> Any:
    session = boto3.session.Session(store.access_key, store.secret_key, region_name=REGION)
    return session.client("s3", endpoint_url=store.endpoint)


@pytest.fixture
def faulty(running: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """The servers, in order."""
    for name in servers.CONFLICTING_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield running
    running.mend()


def record(folder: Path, name: str, *, rank: int = 8, **changes: Any) -> Path:
    adapter = small_adapter(name, rank=rank, width=8192 if rank > 8 else 32)
    given: dict[str, Any] = {"name": name, "work_id": name, "adapter": adapter} | changes
    write_record(folder, PERSON, pairs=2, guard_images=1, steps=10, **given)
    return folder


def registered(folder: Path, place: Servers) -> RegisteredVersion:
    return register(folder, tracking_uri=place.uri, root=NOWHERE)


@pytest.fixture(scope="module")
def version(running: Servers, tmp_path_factory: pytest.TempPathFactory) -> RegisteredVersion:
    """One that is there."""
    return registered(record(tmp_path_factory.mktemp("fetched") / "r", "fetched"), running)


FAULTS: dict[str, Callable[[Servers], None]] = {
    "down": lambda place: place.proxy.refuse(),
    "denying": lambda place: place.proxy.deny(),
    "silent in the middle": lambda place: place.proxy.stall(after=1500),
    # Room for the small artifacts, and not for the weights.
    "full in the middle": lambda place: place.disk.fill(leaving=2 * MIB),
}


@contextmanager
def failing(place: Servers, fault: str) -> Iterator[None]:
    """S3 has the fault; MLflow's client asks its server three times, and waits a second where no answer will come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        patch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
        if fault.startswith("silent"):
            patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        FAULTS[fault](place)
        yield
    place.mend()


@pytest.mark.parametrize(
    ("fault", "rank"),
    [
        ("down", SMALL),
        ("denying", SMALL),
        ("silent in the middle", ONE_PART),
        ("silent in the middle", PARTS),
        ("full in the middle", ONE_PART),
        ("full in the middle", PARTS),
    ],
)
def test_s3_behind_the_server_fails_while_registering_and_works_again(
    faulty: Servers, tmp_path: Path, fault: str, rank: int
) -> None:
    name = f"{fault.replace(' ', '-')}-{rank}"
    folder = record(tmp_path / "r", name, rank=rank)
    assert ((folder / "adapter" / WEIGHTS_FILE).stat().st_size > 8 * MIB) == (rank == PARTS)
    place: dict[str, Any] = {"tracking_uri": faulty.uri, "root": NOWHERE}
    before = faulty.kept().keys()

    said = "could not read or write this artifact; the S3 behind it"
    with failing(faulty, fault), pytest.raises(RegistryError, match=said) as caught:
        registered(folder, faulty)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert list_models(**place, containing=name).models == ()
    partial = {run: paths for run, paths in faulty.kept().items() if run not in before}
    found = {item.identity for item in collect_garbage(**place, older_than=timedelta(0))}
    assert partial.keys() <= found

    version = registered(folder, faulty)
    if fault.endswith("middle"):
        (paths,) = partial.values()
        assert paths < faulty.kept()[version.run_id]
    assert version.version == "1" and version.aliases == ("candidate",)
    here = fetch(name, 1, tmp_path / "here", **place)
    assert file_sha256(here / WEIGHTS_FILE) == version.sha256
    collect_garbage(**place, older_than=timedelta(0), delete=True)
    if not fault.startswith("silent"):  # where the answer is lost that names an upload, nobody can end it
        assert not faulty.uploads() & {version.run_id, *partial}
    left = faulty.kept().keys() - before
    # What the server still held when it was cut off from S3 may arrive later, below a run that is deleted.
    assert left - {item.identity for item in collect_garbage(**place, older_than=timedelta(0))} == {
        version.run_id
    }


@pytest.mark.parametrize("fault", ["silent in the middle", "full in the middle"])
def test_s3_that_clients_write_to_fails_and_works_again(
    faulty: Servers, root: Path, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a registry without a server, whose experiment lies in S3; where S3 is down or denies: test_server."""
    use_object_store(replace(faulty.store, port=faulty.proxy.port), monkeypatch, tmp_path)
    uri = local_uri(root)
    place: dict[str, Any] = {"tracking_uri": uri, "root": NOWHERE}
    MlflowClient(uri, uri).create_experiment("corrections", artifact_location=f"s3://{BUCKET}/direct")
    folder = record(tmp_path / "r", fault.replace(" ", "-"), rank=ONE_PART)

    impatient = botocore.session.Session()
    impatient.set_default_client_config(Config(read_timeout=1, retries={"total_max_attempts": 1}))
    with monkeypatch.context() as patch:
        patch.setattr(boto3, "DEFAULT_SESSION", boto3.session.Session(botocore_session=impatient))
        with (
            failing(faulty, fault),
            pytest.raises(RegistryError, match="the artifact store failed: ") as caught,
        ):
            register(folder, **place)
    forget_s3(monkeypatch)
    assert "\n" not in str(caught.value)
    assert list_models(**place).models == ()

    version = register(folder, **place)
    (orphan,) = collect_garbage(**place, older_than=timedelta(0), delete=True)
    assert orphan.kind == "run" and orphan.identity != version.run_id
    listed = faulty.s3.list_objects_v2(Bucket=BUCKET, Prefix="direct/")["Contents"]
    assert {item["Key"].split("/")[1] for item in listed} == {version.run_id}
    assert verify(**place)[0].problem is None
    faulty.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": item["Key"]} for item in listed]})


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("down", "model/adapter_weights: the server could not read or write this artifact; the S3 behind it"),
        ("denying", "in s3://mlflow: The request signature we calculated does not match"),
        (
            "silent in the middle",
            f"{WEIGHTS}: the server could not read or write this artifact; the S3 behind it",
        ),
    ],
)
def test_s3_behind_the_server_fails_while_fetching_and_works_again(
    faulty: Servers, version: RegisteredVersion, tmp_path: Path, fault: str, said: str
) -> None:
    with failing(faulty, fault), pytest.raises(RegistryError) as caught:
        fetch(version.name, 1, tmp_path / "here", tracking_uri=faulty.uri, root=NOWHERE)
    assert re.fullmatch(f"{re.escape(faulty.uri)}: .*{said}.*", str(caught.value))
    assert list(tmp_path.glob("*here*")) == []
    here = fetch(version.name, 1, tmp_path / "here", tracking_uri=faulty.uri, root=NOWHERE)
    assert file_sha256(here / WEIGHTS_FILE) == version.sha256


def test_half_an_object_is_refused_and_found(faulty: Servers, tmp_path: Path) -> None:
    version = registered(record(tmp_path / "r", "half"), faulty)
    place: dict[str, Any] = {"tracking_uri": faulty.uri, "root": NOWHERE}
    weights, config = faulty.key(version, WEIGHTS), faulty.key(version, CONFIG)
    whole = faulty.s3.get_object(Bucket=BUCKET, Key=weights)["Body"].read()
    faulty.s3.put_object(Bucket=BUCKET, Key=weights, Body=whole[: len(whole) // 2])
    with pytest.raises(RegistryError, match="half/1: the SHA-256 of"):
        fetch("half", 1, tmp_path / "here", **place)
    assert "SHA-256" in (verify(["half"], **place)[0].problem or "")
    faulty.s3.put_object(Bucket=BUCKET, Key=weights, Body=whole)
    settings = faulty.s3.get_object(Bucket=BUCKET, Key=config)["Body"].read()
    faulty.s3.delete_object(Bucket=BUCKET, Key=config)
    with pytest.raises(RegistryError, match=f"{CONFIG_FILE}: missing"):
        fetch("half", 1, tmp_path / "here", **place)
    assert list(tmp_path.glob("*here*")) == []
    faulty.s3.put_object(Bucket=BUCKET, Key=config, Body=settings)
    assert fetch("half", 1, tmp_path / "here", **place).is_dir()


def test_an_alias_of_a_deleted_version_is_named_with_what_there_is(faulty: Servers, tmp_path: Path) -> None:
    for seed in (1, 2):
        registered(record(tmp_path / str(seed), "dangling", work_id=f"dangling-{seed}"), faulty)
    client = MlflowClient(faulty.uri, faulty.uri)
    client.set_registered_model_alias("dangling", "champion", "1")
    # MLflow takes the alias away with its version; an older one, or another program, may have left it.
    with closing(sqlite3.connect(faulty.database, timeout=30)) as database, database:
        database.execute(
            "UPDATE model_versions SET current_stage = 'Deleted_Internal' WHERE name = 'dangling' AND version = 1"
        )
    with pytest.raises(RegistryError, match="points at version 1, which was deleted; it has version 2"):
        find_version(Reference.parse("dangling"), tracking_uri=faulty.uri, root=NOWHERE)
    client.set_registered_model_alias("dangling", "champion", "2")
    assert find_version(Reference.parse("dangling"), tracking_uri=faulty.uri, root=NOWHERE).number == "2"


def test_a_name_that_climbs_stays_below_its_prefix(faulty: Servers, tmp_path: Path) -> None:
    before = faulty.kept().keys()
    version = registered(record(tmp_path / "r", "../../../etc/passwd", work_id="climbing"), faulty)
    assert re.fullmatch(r"etc-passwd-[0-9a-f]{8}", version.name)
    assert faulty.kept().keys() - before == {version.run_id}
    # Whoever may write to the bucket puts names there that lead elsewhere.
    climbing = faulty.key(version, "model/adapter_weights/../../../../../climbed")
    faulty.s3.put_object(Bucket=BUCKET, Key=climbing, Body=b"x")
    here = fetch(version.name, 1, tmp_path / "fetched" / "here", tracking_uri=faulty.uri, root=NOWHERE)
    assert {file.name for file in here.iterdir()} == {WEIGHTS_FILE, CONFIG_FILE}
    assert list(tmp_path.rglob("climbed")) == []
    faulty.s3.delete_object(Bucket=BUCKET, Key=climbing)
    for path in ("../../../keys.json", "model/../../../record.json"):
        with (
            pytest.raises(RegistryError, match="Invalid path"),
            open_store(faulty.uri, NOWHERE, writing=False) as store,
        ):
            store.file(version.run_id, path, tmp_path / "out", limit=MIB)


def test_a_version_that_names_a_place_elsewhere_is_not_followed(faulty: Servers, tmp_path: Path) -> None:
    version = registered(record(tmp_path / "r", "sourced"), faulty)
    client = MlflowClient(faulty.uri, faulty.uri)
    with pytest.raises(MlflowException, match="Invalid model version source"):
        client.create_model_version("sourced", "mlflow-artifacts:/../../other", version.run_id)
    client.create_model_version(
        "sourced", f"runs:/{version.run_id}/images", version.run_id, tags={"adapter_sha256": "0" * 64}
    )
    with pytest.raises(RegistryError, match="its source is"):
        fetch("sourced", 2, tmp_path / "here", tracking_uri=faulty.uri, root=NOWHERE)
