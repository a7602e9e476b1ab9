"""Clusters of several nodes that share no disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.mlflow_server import MlflowServer
from tests.support.nodes import Nodes, cluster_of_nodes
from tests.support.servers import use_mlflow


@pytest.fixture
def separate_nodes(
    tmp_path: Path, bucket: str, postgres: str, mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Nodes]:
    """A head without CPUs, and two nodes that see neither the driver's files nor each other's."""
    use_mlflow(mlflow_server, monkeypatch)
    monkeypatch.setenv("CORRECTOR_DATABASE", postgres)
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "driver" / "cache"))
    with cluster_of_nodes(private=tmp_path / "driver") as nodes:
        for _ in range(2):
            nodes.add(num_cpus=1)
        yield nodes


@pytest.fixture
def stored(s3: Any, bucket: str) -> Callable[[str], list[str]]:
    """The keys of the objects in the bucket whose name ends so."""

    def keys(end: str) -> list[str]:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        found = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return [key for key in found if key.endswith(end)]

    return keys
