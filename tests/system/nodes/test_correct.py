"""A batch on a cluster whose nodes share nothing but S3, a database and MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from corrector.record.correction_record import CorrectionRecord
from jobs.inputs.run_folder import PromptFolder, RunFolder
from tests.support.batches import write_batch
from tests.support.lanes import undisturbed
from tests.support.nodes import Nodes
from tests.support.paths import PROJECT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_batch_outlives_a_node_where_nodes_share_no_disk(
    separate_nodes: Nodes, stored: Callable[[str], list[str]], bucket: str, tmp_path: Path, small_sd3: Path
) -> None:
    names = ("person", "dog", "cat", "horse")
    path = write_batch(tmp_path / "driver", small_sd3, steps=60, names=names)
    place, log = f"s3://{bucket}/runs", tmp_path / "driver" / "job.log"
    command = [sys.executable, "-m", "jobs.correct", str(path), f"--storage={place}", "--slots=2"]
    with log.open("w") as output:
        job = subprocess.Popen(
            [*command, "--checkpoint-seconds=0.1"],
            cwd=PROJECT,
            env=separate_nodes.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        # Two lanes of two slots: with four checkpoints, both nodes hold prompts.
        wait_until(lambda: job.poll() is not None or len(stored("/checkpoint.tar")) == len(names), 300)
        separate_nodes.lose(2)
        status = job.wait(600)
    finally:
        job.kill()
    # Noise teaches nothing, so the gate rejects all: exit status 1.
    assert status == 1, log.read_text()
    result = RunFolder(place, "batch").result.read()
    assert result is not None
    prompts = json.loads(result)["prompts"]
    assert [prompt["adapter"]["version"] for prompt in prompts] == ["1"] * len(names)
    expected = undisturbed(path, tmp_path / "driver" / "reference")
    for prompt in prompts:
        record = PromptFolder(prompt["folder"].removesuffix("/record.tar")).record
        assert record.fetch()
        losses = [point.loss for point in CorrectionRecord.load(record.path).curve]
        assert losses == pytest.approx(expected[prompt["name"]], abs=1e-4)
    assert stored("/checkpoint.tar") == []
