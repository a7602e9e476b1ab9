"""A Ray cluster of several nodes on this machine, of which a test may lose one."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cluster import ports
from cluster.processes import LABEL_VARIABLE, ServerProcesses
from tests.support.paths import PROJECT

_HIDE = 'mkdir -p "{0}" && mount -t tmpfs tmpfs "{0}"'
_COVER = 'mount --bind "{1}" "{0}"'

_WHEN_TOLD = "import sys; from ray.scripts.scripts import cli; input(); cli(sys.argv[1:])"


class Nodes:
    """Nodes of one cluster; the first is the head, without CPUs, where drivers are."""

    def __init__(self, folder: Path, private: Path | None = None) -> None:
        self._folder = folder
        self._private = private
        self._address = f"{ports.LOOPBACK}:{ports.choose('port', None, taken=set())}"
        self._nodes: list[ServerProcesses] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a driver needs in its environment."""
        theirs = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        ours = {"RAY_ADDRESS": self._address, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        return theirs | ours | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}

    def add(self, *, num_cpus: int, num_gpus: int = 0, covered: Mapping[Path, Path] | None = None) -> int:
        """Start a node; returns its number.

        Args:
            covered: Folder -> the folder that the node sees in its place.
        """
        label = secrets.token_hex(8)
        where = (
            ["--head", f"--port={self._address.rpartition(':')[2]}", "--include-dashboard=false"]
            if not self._nodes
            else [f"--address={self._address}"]
        )
        mounts = [_COVER.format(folder, instead) for folder, instead in (covered or {}).items()]
        if self._private and self._nodes:
            mounts.append(_HIDE.format(self._private))
        hidden = (
            ["unshare", "--mount", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh"] if mounts else []
        )
        started = subprocess.run(
            [
                *hidden,
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

    def drainer(self, number: int) -> Callable[[], None]:
        """What tells a node that it will be taken away, as a cloud does with a spot machine; it takes no time to start."""
        (raylet,) = (each for each in self._nodes[number].find() if each.name() == "raylet")
        (node,) = (each.partition("=")[2] for each in raylet.cmdline() if each.startswith("--node_id="))
        options = ["drain-node", f"--address={self._address}", f"--node-id={node}", "--reason-message=spot"]
        options += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds=120"]
        waiting = subprocess.Popen(
            [sys.executable, "-c", _WHEN_TOLD, *options], env=self.environment, stdin=subprocess.PIPE
        )

        def drain() -> None:
            waiting.communicate(b"now\n")
            assert waiting.returncode == 0

        return drain

    def lose(self, number: int) -> None:
        """Kill every process of a node at once, as a machine that loses its power."""
        for process in self._nodes[number].find():
            process.kill()

    def stop(self) -> None:
        """Kill all nodes, the head last."""
        for number in reversed(range(len(self._nodes))):
            self.lose(number)


@contextmanager
def cluster_of_nodes(private: Path | None = None) -> Iterator[Nodes]:
    """A cluster of a head alone; in the place of the folder `private`, each further node has a disk of its own."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        nodes = Nodes(Path(folder), private)
        try:
            nodes.add(num_cpus=0)
            yield nodes
        finally:
            nodes.stop()
