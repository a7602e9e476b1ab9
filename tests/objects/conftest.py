"""A bucket of its own for every test."""

import secrets
from typing import Any

import pytest


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"test-{secrets.token_hex(6)}"
    s3.create_bucket(Bucket=name)
    return name
