"""A node that cannot work for a job is named at once, with the remedy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.support.batches import write_batch
from tests.support.nodes import Nodes, cluster_of_nodes
from tests.support.paths import PROJECT
from tests.support.waiting import LONG, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * LONG)]


def command(folder: Path, base: Path, *options: str) -> list[str]:
    path = write_batch(folder, base)
    return [sys.executable, "-m", "jobs.correct", str(path), f"--storage={folder / 'runs'}", *options]


def run(nodes: Nodes, arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        cwd=PROJECT,
        env=nodes.environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG,
    )


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head without CPUs; tests add nodes in their order."""
    with cluster_of_nodes() as nodes:
        yield nodes


def test_a_cluster_without_cpus_is_told_so(nodes: Nodes, tmp_path: Path, small_sd3: Path) -> None:
    done = run(nodes, command(tmp_path, small_sd3))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no node of the cluster offers a CPU" in done.stderr


def test_a_job_says_that_it_waits_for_a_gpu_and_that_torch_cannot_use_the_one_that_came(
    nodes: Nodes, tmp_path: Path, small_sd3: Path
) -> None:
    nodes.add(num_cpus=1)
    log = tmp_path / "job.log"
    with log.open("w") as output:
        job = subprocess.Popen(
            command(tmp_path, small_sd3, "--gpus=1"),
            cwd=PROJECT,
            env=nodes.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: job.poll() is not None or "no node has a GPU yet" in log.read_text(), LONG)
        assert job.poll() is None, log.read_text()
        nodes.add(num_cpus=1, num_gpus=1)
        status = job.wait(LONG)
    finally:
        job.kill()
    assert status == 2, log.read_text()
    assert "Ray has a GPU here that torch" in log.read_text()


def test_a_runtime_environment_that_cannot_be_built_is_told_so(
    nodes: Nodes, tmp_path: Path, small_sd3: Path
) -> None:
    nodes.add(num_cpus=1)
    submission = json.dumps({"runtime_env": {"conda": "no-such-environment"}})
    done = run(nodes, command(tmp_path, small_sd3), RAY_JOB_CONFIG_JSON_ENV_VAR=submission)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "the job's runtime environment cannot be built" in done.stderr
    assert "Traceback" not in done.stderr


def test_nodes_with_other_code_or_without_a_package_are_named(
    nodes: Nodes, tmp_path: Path, small_sd3: Path
) -> None:
    weights = shutil.ignore_patterns("weights")
    changed = shutil.copytree(PROJECT / "corrector", tmp_path / "changed", ignore=weights)
    (changed / "errors.py").write_text((changed / "errors.py").read_text() + "# changed\n")
    installed = Path(str(distribution("peft").locate_file(f"peft-{distribution('peft').version}.dist-info")))
    (tmp_path / "nothing").mkdir()
    nodes.add(num_cpus=1, covered={PROJECT / "corrector": changed})
    nodes.add(num_cpus=1, covered={installed: tmp_path / "nothing"})
    done = run(nodes, command(tmp_path, small_sd3))
    assert done.returncode == 2, done.stdout + done.stderr
    same = "start every node with the same image"
    assert f"its code of this project is not this driver's; {same}" in done.stderr
    assert f"peft is not installed; {same}" in done.stderr
    assert "Traceback" not in done.stderr
