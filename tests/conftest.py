"""What all tests share: options, the order of tests, servers of the run, small bases."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.support.servers import SharedServers, use_object_store
from tests.support.waiting import LONG

if TYPE_CHECKING:
    from cluster.head import Head
    from cluster.mlflow_server import MlflowServer
    from cluster.object_store import ObjectStore

pytest_plugins = ["tests.support.time_report"]

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SERVERS = pytest.StashKey[SharedServers]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--reference PATH``: a checkout of diffusers, whose own training script the parity tests run."""
    parser.addoption("--reference", type=Path, help="checkout of huggingface/diffusers to compare with")


def pytest_configure(config: pytest.Config) -> None:
    """Name the run's servers; nothing is started before a test asks for it."""
    torch.set_num_threads(1)
    config.stash[SERVERS] = SharedServers.of_this_run()


def pytest_unconfigure(config: pytest.Config) -> None:
    """The process that pytest was started in stops the servers."""
    if not hasattr(config, "workerinput"):
        config.stash[SERVERS].stop()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Files as parameters are named by their argument: an archive holds the time, so its bytes differ by process."""
    return argname if isinstance(val, bytes) and len(val) > 16 else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests run in one process; system tests begin first, since they are the longest, and may take long."""
    for item in items:
        if item.nodeid.startswith("tests/system/") and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONG))
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: not item.nodeid.startswith("tests/system/"))


@pytest.fixture(scope="session")
def shared_servers(request: pytest.FixtureRequest) -> SharedServers:
    """The servers of the run."""
    return request.config.stash[SERVERS]


@pytest.fixture(scope="session")
def ray_head(shared_servers: SharedServers) -> Head:
    """The run's Ray head."""
    return shared_servers.head()


@pytest.fixture(scope="session")
def ray_connection(ray_head: Head) -> Iterator[None]:
    """This process is a driver of the run's Ray head: a job connects to what is there, as under `ray job submit`."""
    import ray

    from jobs.lanes.ray_train import TRAIN_ENVIRONMENT

    environment = {"env_vars": TRAIN_ENVIRONMENT}
    ray.init(address=ray_head.gcs_address, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def object_store(shared_servers: SharedServers) -> ObjectStore:
    """The run's S3 server; tests make buckets of their own."""
    return shared_servers.object_store()


@pytest.fixture(scope="session")
def mlflow_server(shared_servers: SharedServers) -> MlflowServer:
    """The run's MLflow server, whose artifacts lie on `object_store`."""
    return shared_servers.mlflow()


@pytest.fixture
def s3(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """boto3's client of the server, to which the AWS variables point for the duration of the test."""
    import boto3

    use_object_store(object_store, monkeypatch, tmp_path)
    return boto3.session.Session().client("s3")


@pytest.fixture(scope="session")
def reference_checkout(request: pytest.FixtureRequest) -> Path:
    """The checkout given with ``--reference``; tests that need it are skipped without."""
    path: Path | None = request.config.getoption("--reference")
    if path is None:
        pytest.skip("no --reference PATH with a checkout of huggingface/diffusers")
    return path


@pytest.fixture(scope="session")
def small_sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a complete tiny SD3 pipeline with random weights; read only."""
    from tests.support.small_sd3 import write_small_sd3  # diffusers takes seconds to import

    return write_small_sd3(tmp_path_factory.mktemp("small-sd3"), "sd3")


@pytest.fixture(scope="session")
def small_sd35(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with SD3.5's qk_norm and dual attention; read only."""
    from tests.support.small_sd3 import write_small_sd3  # diffusers takes seconds to import

    return write_small_sd3(tmp_path_factory.mktemp("small-sd35"), "sd35")


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared local registry without content, whose tables are made once; read only."""
    from corrector.registry import prepare

    root = tmp_path_factory.mktemp("empty") / "registry"
    prepare(None, root)
    return root


@pytest.fixture
def root(empty_registry: Path, tmp_path: Path) -> Path:
    """A local registry of the test's own, under a path that needs quoting."""
    return Path(shutil.copytree(empty_registry, tmp_path / "registry #1 ü%20"))


def _program(names: Sequence[str], package: str, required: str) -> str:
    """The first of these programs; without any, the test is skipped, and fails where the variable `required` is set."""
    found = next((path for path in map(shutil.which, names) if path is not None), None)
    if found is None:
        reason = f"none of {', '.join(names)} is on the PATH: install the Debian package {package}"
        if os.environ.get(required):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus's checker of rules; REQUIRE_PROMTOOL says that it must be there."""
    return _program(("promtool",), "prometheus", "REQUIRE_PROMTOOL")


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The Chromium of this machine; REQUIRE_BROWSER says that it must be there."""
    return Path(_program(CHROMIUM, "chromium", "REQUIRE_BROWSER"))
