"""Checks that every node of the cluster can work for this job, before lanes are planned.

A lane that Ray places on an unsuitable node fails late and in words of other programs; a node that nothing can be placed on
makes the job wait for ever.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import ray
from ray.exceptions import RayError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from corrector.errors import UserError
from corrector.record.writing import source_sha256
from jobs.lanes.plan import NodeResources

PACKAGES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "pydantic", "boto3")
"""Packages whose versions decide results or file formats."""
START_SECONDS = 120.0
"""Within which every node must start a process."""


@dataclass(frozen=True)
class NodeSoftware:
    """What one node would work with.

    Attributes:
        host: The node's name.
        code: SHA-256 of the source of `corrector` and `jobs`.
        versions: Package -> version; None where it is not installed.
    """

    host: str
    code: str
    versions: Mapping[str, str | None]

    def difference(self, driver: NodeSoftware) -> str | None:
        """How it differs from the driver's, in words; None where it does not."""
        for package, version in driver.versions.items():
            own = self.versions[package]
            if own is None:
                return f"{package} is not installed"
            if own != version:
                return f"{package} is {own}, and this driver's {version}"
        return None if self.code == driver.code else "its code of this project is not this driver's"


def software() -> NodeSoftware:
    """That of this process."""
    return NodeSoftware(
        socket.gethostname(), source_sha256("corrector", "jobs"), {name: _version(name) for name in PACKAGES}
    )


def alive_nodes() -> list[NodeResources]:
    """The resources of every node of the cluster that is not about to leave."""
    leaving = draining_nodes()
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]


def draining_nodes() -> set[str]:
    """Ids of the nodes that were told to leave: by a cloud that takes a spot machine back, an autoscaler or an operator."""
    return set(ray._private.state.state.get_draining_nodes())


def check_nodes() -> None:
    """Start a process on every node, and compare its packages and code with this driver's.

    Raises:
        UserError: A node differs or starts no process, or the job's runtime environment cannot be built; with the remedy.
    """
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(nodes) < 2:
        return
    running = {_on_node(node): address for node, address in nodes.items()}
    _, late = ray.wait(list(running), num_returns=len(running), timeout=START_SECONDS)
    mistakes = [
        f"node {running[each]}: starts no process within {START_SECONDS:g} s; look at its logs, or take it out of the cluster"
        for each in late
    ]
    driver = software()
    for reference, address in running.items():
        if reference not in late and (difference := _difference(reference, driver)) is not None:
            mistakes.append(f"node {address}: {difference}; start every node with the same image")
    if mistakes:
        raise UserError("\n".join(mistakes))


def _on_node(node: str) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(software).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote()


def _difference(reference: Any, driver: NodeSoftware) -> str | None:
    try:
        found: NodeSoftware = ray.get(reference)
    except RuntimeEnvSetupError as error:
        return f"the job's runtime environment cannot be built there: {_last_line(error)}"
    except RayError as error:
        return f"cannot run this project's code: {_last_line(error)}"
    return found.difference(driver)


def _last_line(error: Exception) -> str:
    lines: Sequence[str] = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
