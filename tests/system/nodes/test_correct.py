"""A batch on a cluster whose nodes share nothing but S3, a database and MLflow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corrector.record.correction_record import CorrectionRecord
from jobs.inputs.run_folder import PromptFolder, RunFolder, read_json
from tests.support.batches import write_batch
from tests.support.lanes import undisturbed
from tests.support.nodes import Nodes
from tests.support.paths import PROJECT
from tests.support.waiting import LONG, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * LONG)]

NAMES = ("person", "dog", "cat", "horse")
Stored = Callable[[str], list[str]]


def test_a_batch_outlives_a_node_where_nodes_share_no_disk(
    separate_nodes: Nodes, stored: Stored, bucket: str, tmp_path: Path, small_sd3: Path
) -> None:
    path = write_batch(tmp_path / "driver", small_sd3, steps=60, names=NAMES)

    saved: set[str] = set()

    def all_saved() -> bool:
        saved.update(stored("/checkpoint.tar"))
        return len(saved) == len(NAMES)

    def lose_one(job: subprocess.Popen[bytes]) -> None:
        # Two lanes of two slots: where all four were saved, both nodes had prompts. One lane may be done by now.
        wait_until(lambda: job.poll() is not None or all_saved(), LONG)
        separate_nodes.lose(2)

    results = submitted(separate_nodes, path, bucket, lose_one, "--checkpoint-seconds=0.1")
    assert [result["adapter"]["version"] for result in results] == ["1"] * len(NAMES)
    assert stored("/checkpoint.tar") == []
    assert losses(results) == undisturbed_losses(path, tmp_path / "driver" / "reference")


def test_a_node_that_is_told_to_leave_saves_before_it_goes(
    separate_nodes: Nodes, stored: Stored, bucket: str, tmp_path: Path, small_sd3: Path
) -> None:
    """Lanes save nothing but on this occasion."""
    path = write_batch(tmp_path / "driver", small_sd3, steps=200, names=NAMES)
    drain = separate_nodes.drainer(2)

    def take_back(job: subprocess.Popen[bytes]) -> None:
        log = tmp_path / "driver" / "job.log"
        wait_until(lambda: job.poll() is not None or log.read_text().count("  training") >= len(NAMES), LONG)
        drain()
        wait_until(lambda: job.poll() is not None or len(stored("/checkpoint.tar")) == 2, LONG)
        assert job.poll() is None, "the job ended before the node was told to leave"
        separate_nodes.lose(2)

    results = submitted(separate_nodes, path, bucket, take_back, "--checkpoint-seconds=1000")
    assert losses(results) == undisturbed_losses(path, tmp_path / "driver" / "reference")


def submitted(
    nodes: Nodes, path: Path, bucket: str, disturb: Callable[[subprocess.Popen[bytes]], None], *options: str
) -> list[dict[str, Any]]:
    """The results of the batch's prompts, after a job that was disturbed."""
    place, log = f"s3://{bucket}/runs", path.with_name("job.log")
    command = [sys.executable, "-m", "jobs.correct", str(path), f"--storage={place}", "--slots=2", *options]
    with log.open("w") as output:
        job = subprocess.Popen(
            command, cwd=PROJECT, env=nodes.environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        disturb(job)
        status = job.wait(LONG)
    finally:
        job.kill()
    # Noise teaches nothing, so the gate rejects all: exit status 1.
    assert status == 1, log.read_text()
    found: list[dict[str, Any]] = read_json(RunFolder(place, "batch").result)["prompts"]
    return found


def losses(results: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Name -> the losses in the prompt's record."""
    found = {}
    for result in results:
        record = PromptFolder(result["folder"].removesuffix("/record.tar")).record
        assert record.fetch()
        found[result["name"]] = [point.loss for point in CorrectionRecord.load(record.path).curve]
    return found


def undisturbed_losses(path: Path, storage: Path) -> dict[str, Any]:
    return {name: pytest.approx(curve, abs=1e-4) for name, curve in undisturbed(path, storage).items()}
