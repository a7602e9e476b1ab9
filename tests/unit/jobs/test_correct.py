"""`python -m jobs.correct` where nothing is to be started: a batch with mistakes, and the plan."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.correct import main
from jobs.inputs.run_folder import RunFolder
from jobs.inputs.run_lock import locked
from tests.support.batches import write_batch
from tests.support.paths import PROJECT


def test_a_batch_with_mistakes_starts_nothing_and_does_not_import_ray(tmp_path: Path) -> None:
    (tmp_path / "batch.yaml").write_text("base: embedded\nprompts:\n  - promt: a person lying on the grass\n")
    command = [sys.executable, "-X", "importtime", "-m", "jobs.correct", str(tmp_path / "batch.yaml")]
    done = subprocess.run(
        [*command, "--storage", str(tmp_path / "runs")],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert 'did you mean "prompt"' in done.stderr
    assert "Traceback" not in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "ray" not in imported
    assert not (tmp_path / "runs").exists()


def test_the_plan_is_printed_and_nothing_is_started(
    tmp_path: Path, small_sd3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_batch(tmp_path, small_sd3)
    assert main([str(path), "--plan", "--storage", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    assert "a person lying on the grass" in printed
    assert not RunFolder(tmp_path / "runs", "batch").place.disk.exists()


def test_a_second_submission_of_a_run_is_refused(
    tmp_path: Path, small_sd3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_batch(tmp_path, small_sd3)
    with locked(RunFolder(tmp_path / "runs", "batch")):
        assert main([str(path), "--storage", str(tmp_path / "runs")]) == 2
    assert "works in this run's folder; wait until it ends" in capsys.readouterr().err
