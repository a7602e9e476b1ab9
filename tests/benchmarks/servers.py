"""S3 and MLflow of this machine, which can be stopped and started again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import mlflow_server, object_store, ports
from cluster.mlflow_server import MlflowOptions


class Machine:
    """S3 and MLflow of this machine, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._states = folder / "objects", folder / "mlflow"
        self._port = ports.choose("port", None, taken=set())
        self._store = object_store.start(state=self._states[0])
        self._options = MlflowOptions(port=self._port, store=self._store)
        self._mlflow = mlflow_server.start(self._options, state=self._states[1])
        self.uri = self._mlflow.tracking_uri
        self.bucket = mlflow_server.ARTIFACTS.removeprefix("s3://")

    @property
    def s3(self) -> Any:
        """boto3's client of the object store."""
        import boto3
        from botocore.config import Config

        store = self._store
        return boto3.client(
            "s3",
            endpoint_url=store.endpoint,
            aws_access_key_id=store.access_key,
            aws_secret_access_key=store.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def stop_store(self) -> None:
        """S3 is gone."""
        object_store.stop(self._store, state=self._states[0])

    def start_store(self) -> None:
        """It is back, at the same address."""
        self._store = object_store.start(state=self._states[0], port=self._store.port)

    def stop_mlflow(self) -> None:
        """The registry is gone."""
        mlflow_server.stop(self._mlflow, state=self._states[1])

    def start_mlflow(self) -> None:
        """It is back, at the same address."""
        self._mlflow = mlflow_server.start(self._options, state=self._states[1])

    def close(self) -> None:
        """Both are stopped."""
        self.stop_mlflow()
        self.stop_store()


@contextmanager
def servers(folder: Path) -> Iterator[Machine]:
    """Both run."""
    machine = Machine(folder)
    try:
        yield machine
    finally:
        machine.close()
