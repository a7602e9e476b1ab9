"""A trial's process costs little: it holds the queue's handle, and neither torch nor extractors."""

from __future__ import annotations

import inspect
import subprocess
import sys

from jobs.trial_desk import TrialDesk
from jobs.trial_queue import TrialQueue

# What only the queue itself needs.
_WITHIN = {"add"}


def _public(owner: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(owner, inspect.isfunction) if not name.startswith("_")}


def test_the_desk_passes_on_all_that_the_queue_can_do() -> None:
    assert _public(TrialDesk) == _public(TrialQueue) - _WITHIN

    desk = TrialDesk({})
    assert desk.claim("lane", 1, max_rank=8) == []
    assert not desk.is_complete()
    desk.complete()
    assert desk.is_complete()


def test_what_a_trial_imports_is_without_torch() -> None:
    heavy = ["torch", "onnxruntime", "diffusers", "mlflow"]
    code = f"import jobs.trial_desk, jobs.trial_function, sys; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
