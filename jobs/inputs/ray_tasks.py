"""Asking Ray tasks for their get_results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError

from corrector.errors import UserError


def get_results(references: Sequence[Any]) -> list[Any]:
    """What the tasks return, in their order; a task's :class:`UserError` is raised as it was, without Ray's trace."""
    try:
        results: list[Any] = ray.get(list(references))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    return results
