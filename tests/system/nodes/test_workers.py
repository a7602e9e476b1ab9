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

ASKED = """
import os
from ray.autoscaler.v2.sdk import get_cluster_status
demands = get_cluster_status(os.environ["RAY_ADDRESS"]).resource_demands.cluster_constraint_demand
print([(each.bundle, each.count) for demand in demands for each in demand.bundles_by_count], end="")
"""
TWO_GPUS = "[({'CPU': 1.0, 'GPU': 1.0}, 2)]"


def test_a_command_runs_when_the_first_gpu_joins_and_takes_its_request_back(tmp_path: Path) -> None:
    with cluster_of_nodes() as nodes:

        def asked() -> str:
            """The bundles that the autoscaler is asked for; in another process, since this one's Ray may have a token."""
            program = [sys.executable, "-c", ASKED]
            return subprocess.run(
                program, env=nodes.environment, capture_output=True, text=True, check=True
            ).stdout

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
        assert (refused.returncode, asked(), begun.exists()) == (2, "[]", False)
        assert "no GPU joined the cluster within 1 s" in refused.stderr

        with subprocess.Popen([*asking, "--", *command], env=nodes.environment) as waiting:
            wait_until(lambda: asked() == TWO_GPUS, 60, asked)
            assert not begun.exists()
            nodes.add(num_cpus=1, num_gpus=1)
            assert waiting.wait(60) == 7
        assert begun.exists() and asked() == "[]"


def test_outside_of_ray_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert workers.main(["--gpus", "1", "--", "true"]) == 2
    assert "RAY_ADDRESS is not set" in capsys.readouterr().err
