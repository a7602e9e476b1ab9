"""A trial's process costs little: it holds the queue's handle, and neither torch nor extractors."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from pathlib import Path

from jobs.tuning.desk import TrialDesk
from jobs.tuning.queue import TrialQueue
from jobs.tuning.trials import TrialGroup
from tests.unit.jobs.tuning.test_queue import plan, report

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
    code = f"import jobs.tuning.desk, jobs.tuning.trainable, sys; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_trial_that_looks_is_answered_when_there_is_news(tmp_path: Path) -> None:
    async def search() -> None:
        desk = TrialDesk({"person": TrialGroup("person", (plan(tmp_path),))})
        plan(tmp_path).trial_folder(0).begin({"rank": 2})
        names = desk.open("person", 0, {"rank": 2})
        looking = asyncio.create_task(desk.look(names, 0))
        await asyncio.sleep(0.5)
        assert not looking.done()

        desk.deliver(names[0], report(0, 10))

        view = await asyncio.wait_for(looking, 60)
        assert [metrics["steps"] for metrics in view.metrics] == [10]
        ending = asyncio.create_task(desk.look(names, 1))
        desk.close("person", 0)
        assert (await asyncio.wait_for(ending, 60)).ended

    asyncio.run(search())
