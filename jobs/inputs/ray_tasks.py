"""Ray tasks: their results, and the threads that each process may use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import ray
import torch
from ray.exceptions import RayTaskError, RuntimeEnvSetupError

from corrector.errors import UserError


def get_results(references: Sequence[Any]) -> list[Any]:
    """The results of tasks, in their order; a task's :class:`UserError` is raised again without Ray's trace."""
    try:
        results: list[Any] = ray.get(list(references))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    except RuntimeEnvSetupError as error:
        raise UserError(f"the job's runtime environment cannot be built: {error}") from error
    return results


def bound_threads(threads: int) -> None:
    """Let torch use `threads` threads in this process."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
