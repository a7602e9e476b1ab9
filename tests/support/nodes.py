"""A Ray cluster of several nodes on this machine, of which a test may lose one."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import ports
from cluster.processes import LABEL_VARIABLE, ServerProcesses
from tests.support.paths import PROJECT

_OF_OTHERS = ("RAY_", "CORRECTOR_")


class Nodes:
    """Nodes of one cluster; the first is the head, without CPUs, where drivers are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._address = f"{ports.LOOPBACK}:{ports.choose('port', None, taken=set())}"
        self._nodes: list[ServerProcesses] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a driver needs in its environment."""
        theirs = {name: value for name, value in os.environ.items() if not name.startswith(_OF_OTHERS)}
        ours = {"RAY_ADDRESS": self._address, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        return theirs | ours | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}

    def add(self, *, num_cpus: int, num_gpus: int = 0) -> int:
        """Start a node; returns its number."""
        label = secrets.token_hex(8)
        where = (
            ["--head", f"--port={self._address.rpartition(':')[2]}", "--include-dashboard=false"]
            if not self._nodes
            else [f"--address={self._address}"]
        )
        started = subprocess.run(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", *where),
                *(f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}", f"--object-store-memory={128 * 2**20}"),
                f"--node-ip-address={ports.LOOPBACK}",
                *([f"--temp-dir={self._folder}"] if not self._nodes else []),
            ],
            cwd=PROJECT,
            env={name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
            | {LABEL_VARIABLE: label},
            capture_output=True,
            text=True,
            check=False,
        )
        assert started.returncode == 0, started.stdout + started.stderr
        self._nodes.append(ServerProcesses(label))
        return len(self._nodes) - 1

    def lose(self, number: int) -> None:
        """Kill every process of a node at once, as a machine that loses its power."""
        for process in self._nodes[number].find():
            process.kill()

    def stop(self) -> None:
        """Kill all nodes, the head last."""
        for number in reversed(range(len(self._nodes))):
            self.lose(number)


@contextmanager
def cluster_of_nodes() -> Iterator[Nodes]:
    """A cluster of a head alone."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        nodes = Nodes(Path(folder))
        try:
            nodes.add(num_cpus=0)
            yield nodes
        finally:
            nodes.stop()
