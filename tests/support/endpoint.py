"""An endpoint on Ray Serve, as `python -m serving` starts it on a head of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil

from cluster import ports
from cluster.head import Head
from tests.support.ingress import post
from tests.support.paths import PROJECT
from tests.support.processes import title
from tests.support.served_registry import NAME, RegistryOf
from tests.support.waiting import wait_until

READY_SECONDS = 300
FOLLOW_SECONDS = 120.0
"""How long a change is waited for; how long it takes is for tests.benchmarks.endpoint to say."""
STOP_SECONDS = 120


@dataclass(frozen=True)
class Endpoint:
    """Where it answers, what it serves, and where it keeps things."""

    address: str
    registry: RegistryOf
    head: Head
    folder: Path

    def draw(self, prompt: str, **fields: Any) -> httpx2.Response:
        """The answer to an images request, of few steps."""
        return post(self.address, {"prompt": prompt, "num_inference_steps": 2, "seed": 7, **fields})

    def ready(self) -> dict[str, Any]:
        """What /readyz says; empty where nothing answers."""
        try:
            with httpx2.Client(base_url=self.address, timeout=10, verify=False) as client:
                return dict(client.get("/readyz").json())
        except (httpx2.HTTPError, ValueError):
            return {}

    def champion(self, name: str = NAME) -> str | None:
        """The version of `name` that is served."""
        with httpx2.Client(base_url=self.address, timeout=10, verify=False) as client:
            answer = client.get(f"/v1/models/{name}")
        return str(answer.json()["version"]) if answer.status_code == 200 else None

    def serves(self, version: str | None, seconds: float = FOLLOW_SECONDS) -> None:
        """Returns as soon as the champion is `version`."""
        wait_until(lambda: self.champion() == version, seconds)

    def replica(self, deployment: str) -> psutil.Process:
        """The process of a deployment's only replica."""
        found = titled(self.head, f"ray::ServeReplica:images:{deployment}")
        assert len(found) == 1, found
        return found[0]


@contextmanager
def running(folder: Path, head: Head, registry: RegistryOf, *options: str) -> Iterator[Endpoint]:
    """The endpoint of the registry, ready; what it keeps lies in `folder`. Afterwards nothing of Ray Serve is left on the
    head: its CPUs are free again.

    Args:
        options: Further arguments of `python -m serving`.
    """
    port = ports.choose("port", None, taken=set())
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    where = {"CORRECTOR_RUNS": str(registry.root.parent), "CORRECTOR_CACHE": str(folder / "cache")}
    if registry.tracking_uri is not None:
        where["MLFLOW_TRACKING_URI"] = registry.tracking_uri
    said = folder / "serving.log"
    with said.open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "serving", f"--port={port}", "--versions=any", *options],
            cwd=PROJECT,
            env={**theirs, **head.environment, **where},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        endpoint = Endpoint(f"http://127.0.0.1:{port}", registry, head, folder)
        try:
            wait_until(lambda: "ready at" in said.read_text() or server.poll() is not None, READY_SECONDS)
            assert server.poll() is None, said.read_text()
            assert endpoint.ready()["ready"] is True
            yield endpoint
        finally:
            server.send_signal(signal.SIGTERM)
            status = server.wait(STOP_SECONDS)
    assert status == 0, said.read_text()
    wait_until(lambda: not titled(head, "ray::Serve") and not titled(head, "ray::ProxyActor"), STOP_SECONDS)


def titled(head: Head, name: str) -> list[psutil.Process]:
    """Processes of the head whose title begins with `name`."""
    return [process for process in head.processes.find() if title(process).startswith(name)]
