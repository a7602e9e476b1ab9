"""The nightly batch is submitted to a real Ray head, once."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from cluster.head import Head
from jobs.nightly import submit
from tests.support.waiting import wait_until


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
