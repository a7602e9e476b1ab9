"""The job as a user submits it: from a batch file to registered adapters, on a real Ray."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from cluster.head import Head
from jobs.inputs.run_folder import PromptFolder
from tests.support.batches import correct, losses, write_batch
from tests.support.lanes import undisturbed
from tests.support.processes import beyond_loopback, listening, title
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.usefixtures("ray_connection")]

STEPS = 24


def test_a_batch_becomes_registered_adapters_and_a_second_submission_repeats_nothing(
    tmp_path: Path, small_sd3: Path
) -> None:
    path = write_batch(tmp_path, small_sd3)
    status, result = correct(path, tmp_path / "runs")
    statuses = {prompt["name"]: prompt["status"] for prompt in result["prompts"]}
    # Noise teaches nothing, so the gate must not let either through; the adapters are registered for people to see.
    assert statuses == {"person": "rejected", "dog": "rejected"}
    assert status == 1
    for prompt in result["prompts"]:
        assert prompt["worked"]
        assert prompt["reasons"]
        assert prompt["adapter"]["aliases"] == []
        weights = Path(prompt["folder"]) / "adapter" / "pytorch_lora_weights.safetensors"
        assert weights.is_file()
        # What the prompt's own images refuse costs no image of another prompt.
        card, look = prompt["scorecard"], prompt["scorecard"]["looks"][-1]
        assert (look["decision"], look["n"]) == ("refused", prompt["images"])
        assert (card["guards"], card["false_route"]) == ([], None)
        record = json.loads((Path(prompt["folder"]) / "record.json").read_text())
        assert (len(record["seeds"]), record["hard_negatives"]) == (prompt["images"], [])
    assert "a person lying on the grass" in Path(result["report"]).read_text()

    _, again = correct(path, tmp_path / "runs")
    assert not any(prompt["worked"] for prompt in again["prompts"])
    assert [prompt["adapter"] for prompt in again["prompts"]] == [
        prompt["adapter"] for prompt in result["prompts"]
    ]

    # Another run finds the same work in the registry, and has everything of it without training.
    status, found = correct(path, tmp_path / "runs", run="another")
    assert status == 1
    for prompt, first in zip(found["prompts"], result["prompts"], strict=True):
        assert prompt["worked"]
        assert prompt["found"] == f"{first['adapter']['name']}/1"
        assert first["found"] is None
        assert [prompt[key] for key in ("status", "reasons", "adapter", "scorecard", "seconds")] == [
            first[key] for key in ("status", "reasons", "adapter", "scorecard", "seconds")
        ]
    assert losses(found) == losses(result)
    assert "a person lying on the grass" in Path(found["report"]).read_text()
    assert list((tmp_path / "runs" / "another" / "lanes").iterdir()) == []


@pytest.mark.slow
def test_only_a_changed_prompt_is_trained_again_by_a_lane_of_two_workers(
    tmp_path: Path, small_sd3: Path
) -> None:
    path = write_batch(tmp_path, small_sd3)
    correct(path, tmp_path / "runs")
    changed = json.loads(path.read_text())
    changed["prompts"][0]["rank"] = 1
    path.write_text(json.dumps(changed))
    _, result = correct(path, tmp_path / "runs", workers=2)
    assert [prompt["worked"] for prompt in result["prompts"]] == [True, False]
    assert {prompt["status"] for prompt in result["prompts"]} == {"rejected"}
    assert all(len(curve) == 4 for curve in losses(result).values())


def test_a_killed_lane_changes_nothing_but_the_time(ray_head: Head, tmp_path: Path, small_sd3: Path) -> None:
    path = write_batch(tmp_path, small_sd3, steps=STEPS)
    storage = tmp_path / "runs"
    killer = Killer(ray_head, storage / "batch" / "prompts")
    killer.start()
    _, result = correct(path, storage)
    killer.join()
    assert killer.killed
    assert not killer.exposed, "a lane listens beyond the loopback interface"
    assert not killer.sampled
    assert losses(result) == {
        name: pytest.approx(expected, abs=1e-4)
        for name, expected in undisturbed(path, tmp_path / "reference").items()
    }


class Killer(threading.Thread):
    """Kills the Ray Train worker of a lane as soon as one of its prompts has a checkpoint.

    It knows the worker before that, since a search among all processes may take longer than the training.
    """

    def __init__(self, head: Head, prompts: Path) -> None:
        super().__init__()
        self._head = head
        self._prompts = prompts
        self._workers: list[psutil.Process] = []
        self._others = self._found()
        self.killed = 0
        self.sampled = True
        """Whether a prompt had been trained to its end before the kill."""
        self.exposed: list[str] = []
        """Addresses beyond loopback on which the head or a lane listened while prompts were in training."""

    def run(self) -> None:
        wait_until(self._find_workers, every=0.2)  # a look at all processes takes as long as a step
        wait_until(lambda: list(self._prompts.glob("*/checkpoint/engine.json")))
        for worker in self._workers:
            with suppress(psutil.NoSuchProcess):
                worker.suspend()
        self.exposed = beyond_loopback(listening(self._head.processes.find()))
        for worker in self._workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
                self.killed += 1
        self.sampled = any(PromptFolder(folder).sampled.exists() for folder in self._prompts.iterdir())

    def _found(self) -> list[psutil.Process]:
        """The workers of the head's lanes."""
        titled = [process for process in psutil.process_iter() if "RayTrainWorker" in title(process)]
        return [process for process in self._head.processes.find() if process in titled] if titled else []

    def _find_workers(self) -> list[psutil.Process]:
        """Those that this test has started, and which load the base now."""
        self._workers = [process for process in self._found() if process not in self._others]
        return self._workers
