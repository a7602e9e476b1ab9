"""Fixtures of the servers' tests."""

from tests.mlflow_server import mlflow_server

__all__ = ["mlflow_server"]
