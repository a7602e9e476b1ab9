"""The nightly batch with exemplars on a real S3 server, and its submission to a real Ray head."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from cluster.head import Head
from corrector.prompts import load_batch
from jobs.nightly import main, submit
from tests.support.paths import EXEMPLARS
from tests.support.s3 import upload
from tests.support.waiting import wait_until


def test_exemplars_come_from_s3(s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    s3.create_bucket(Bucket="nightly")
    upload(EXEMPLARS / "person-lying-on-the-grass", "s3://nightly/exemplars/a-dog")
    s3.put_object(Bucket="nightly", Key="exemplars/a-dog/entry.yaml", Body=b"guard_prompts: [a dog standing]")
    request = {"seeds": [7], "adapter": None, "base_revision": "r"}
    verdicts = tmp_path / "verdicts.jsonl"
    with verdicts.open("w") as file:
        for prompt in ("a dog", "a cat"):
            given = {
                "verdict": "bad",
                "given": time.time(),
                "key": "shop",
                "request": request | {"prompt": prompt},
            }
            file.write(json.dumps(given) + "\n")
    out = tmp_path / "out"
    assert main([str(verdicts), "--exemplars", "s3://nightly/exemplars", "--out", str(out)]) == 0
    assert [each.name for each in load_batch(out / "flagged.yaml").prompts] == ["a-dog"]
    assert "a-cat: left out, flagged 1 times: s3://nightly/exemplars/a-cat/" in capsys.readouterr().out


def test_a_batch_is_submitted_with_its_files_and_only_once(
    ray_head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ray_head.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "flagged.yaml").write_text("prompts: [a dog]")
    submit("nightly-test", "cat flagged.yaml", tmp_path)
    submit("nightly-test", "cat flagged.yaml", tmp_path)
    assert "nightly-test was submitted before" in capsys.readouterr().out
    client = JobSubmissionClient()
    wait_until(lambda: client.get_job_status("nightly-test") in (JobStatus.SUCCEEDED, JobStatus.FAILED), 120)
    assert "prompts: [a dog]" in client.get_job_logs("nightly-test")
