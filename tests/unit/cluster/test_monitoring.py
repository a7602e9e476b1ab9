"""Alert rules and dashboard are whole; that their metrics exist is shown in tests/system."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from cluster.monitoring import dashboard
from tests.support.commands import run
from tests.support.guides import blocks

RULES = [rule for group in yaml.safe_load(dashboard.ALERTS.read_text())["groups"] for rule in group["rules"]]
TESTS = dashboard.FOLDER / "alerts_test.yaml"


def accepted(*command: str | Path) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_rules_are_valid_and_fire_when_they_should(promtool: str) -> None:
    accepted(promtool, "check", "rules", dashboard.ALERTS)
    accepted(promtool, "test", "rules", TESTS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do_and_has_a_test(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"] and rule["annotations"]["runbook"].endswith(".")
    assert re.search(rf'alertname="{rule["alert"]}"', TESTS.read_text())


def test_every_query_of_the_dashboard_is_promql(promtool: str, tmp_path: Path) -> None:
    queries = [each.replace("$__rate_interval", "5m") for each in dashboard.dashboard_expressions()]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    accepted(promtool, "check", "rules", path)


def test_prometheus_takes_the_guides_configuration(promtool: str, tmp_path: Path) -> None:
    (block,) = [block for block in blocks(dashboard.FOLDER / "README.md") if block.language == "yaml"]
    (tmp_path / "prometheus.yaml").write_text(block.text)
    shutil.copy(dashboard.ALERTS, tmp_path)
    accepted(promtool, "check", "config", tmp_path / "prometheus.yaml")


def test_the_dashboard_is_the_one_that_its_code_makes(tmp_path: Path) -> None:
    assert run(dashboard.main, "--out", tmp_path / "made.json").returncode == 0
    made = (tmp_path / "made.json").read_text()
    assert dashboard.DASHBOARD.read_text() == made, "run `python -m cluster.monitoring.dashboard`"


def test_metrics_of_gpu_nodes_are_rays() -> None:
    assert {name.removeprefix("ray_") for name in dashboard.OF_GPU_NODES} <= METRICS_GAUGES.keys()
