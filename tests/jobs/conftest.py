"""Fixtures that the tests of whole jobs share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import ray

from jobs.trainer import TRAIN_ENVIRONMENT


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of this process: the job connects to the one that is there, as it does under `ray job submit`."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=128 * 2**20,
        runtime_env={"env_vars": TRAIN_ENVIRONMENT},
    )
    yield
    ray.shutdown()
