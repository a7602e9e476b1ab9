"""What a person on call sees of a job: its metrics, by the names that alerts and dashboard use, and its logs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.head import Head
from cluster.monitoring.dashboard import alert_expressions, dashboard_expressions, metrics_of
from tests.support.batches import write_batch
from tests.support.metrics_pages import exposed
from tests.support.paths import PROJECT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]

RUN = "night"


def test_a_job_exposes_what_alerts_and_dashboard_ask_for_and_logs_json(
    ray_head: Head, tmp_path: Path, small_sd3: Path
) -> None:
    path = write_batch(tmp_path, small_sd3, steps=40)
    variables = {
        "RAY_LOGGING_CONFIG_ENCODING": "JSON",
        "RAY_metrics_report_interval_ms": "1000",  # a lane that is killed does not report what it has left
        "CORRECTOR_DEVICE_HOUR_DOLLARS": "2",
        "CORRECTOR_BUDGET_DOLLARS": "10",
    }
    expected = {
        name
        for name in metrics_of([*alert_expressions(), *dashboard_expressions()])
        if name.startswith("ray_corrector_job_")
    }
    seen: dict[str, list[dict[str, str]]] = {}
    with (tmp_path / "driver.log").open("w") as log:
        job = subprocess.Popen(
            [sys.executable, "-m", "jobs.correct", path, f"--storage={tmp_path / 'runs'}", f"--run-id={RUN}"],
            cwd=PROJECT,
            env=ray_head.driver_environment(variables),
            stdout=subprocess.DEVNULL,
            stderr=log,
        )

        def told() -> bool:
            seen.update(
                {name: labels for name, series in exposed(ray_head).items() if (labels := of_run(series))}
            )
            return expected <= seen.keys() or job.poll() is not None

        try:
            wait_until(told, 300)
            job.wait(300)
            told()
        finally:
            job.kill()
    driver = (tmp_path / "driver.log").read_text()
    assert expected <= seen.keys(), (expected - seen.keys(), driver)
    assert {labels["state"] for labels in seen["ray_corrector_job_prompts"]} >= {
        "waiting",
        "training",
        "failed",
    }
    assert {labels["lane"] for labels in seen["ray_corrector_job_steps_total"]} == {"lane-1"}

    said = json_lines(driver.splitlines())
    assert {line["prompt"] for line in said if line.get("state") == "rejected"} == {"person", "dog"}
    assert all(line["run"] == RUN and line["job_id"] for line in said if "state" in line)
    logs = Path(ray_head.scratch) / "session_latest" / "logs" / "train"
    lanes = [
        line
        for file in logs.glob("ray-train-app-worker-*.log")
        for line in json_lines(file.read_text().splitlines())
        if line.get("run") == RUN and "slot" in line
    ]
    fields = ("lane", "slot", "prompt", "adapter")
    assert {tuple(line[field] for field in fields) for line in lanes} == {
        ("lane-1", 1, "person", "person"),
        ("lane-1", 2, "dog", "dog"),
    }


def of_run(series: list[dict[str, str]]) -> list[dict[str, str]]:
    return [labels for labels in series if labels.get("run") == RUN]


def json_lines(lines: list[str]) -> list[dict[str, Any]]:
    """The lines, each of which must be a JSON object."""
    return [json.loads(line) for line in lines if line]
