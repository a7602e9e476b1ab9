"""A command waits for GPU workers that it asked the autoscaler for, on a cluster that has none yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster import workers
from tests.support.nodes import cluster_of_nodes
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def test_a_command_runs_when_the_first_gpu_joins_and_takes_its_request_back(tmp_path: Path) -> None:
    from ray.autoscaler.v2.sdk import get_cluster_status

    with cluster_of_nodes() as nodes:
        address = nodes.environment["RAY_ADDRESS"]

        def asked() -> int:
            return len(get_cluster_status(address).resource_demands.cluster_constraint_demand)

        begun = tmp_path / "begun"
        command = [
            sys.executable,
            "-c",
            f"import pathlib; pathlib.Path({str(begun)!r}).touch(); raise SystemExit(7)",
        ]
        asking = [sys.executable, "-m", "cluster.workers", "--gpus", "2"]
        refused = subprocess.run(
            [*asking, "--wait", "1", "--", *command],
            env=nodes.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (refused.returncode, asked(), begun.exists()) == (2, 0, False)
        assert "no GPU joined the cluster within 1 s" in refused.stderr

        with subprocess.Popen([*asking, "--", *command], env=nodes.environment) as waiting:
            wait_until(lambda: asked() > 0, 60)
            assert not begun.exists()
            nodes.add(num_cpus=1, num_gpus=1)
            assert waiting.wait(60) == 7
        assert begun.exists() and asked() == 0


def test_outside_of_ray_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert workers.main(["--gpus", "1", "--", "true"]) == 2
    assert "RAY_ADDRESS is not set" in capsys.readouterr().err
