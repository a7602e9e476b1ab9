"""Write the Grafana dashboard: `python -m cluster.monitoring.dashboard` makes `dashboard.json` beside this file.

The dashboard asks for its Prometheus and for a run; panels of the endpoint and of the cluster show all of the data source.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
DASHBOARD = FOLDER / "dashboard.json"
ALERTS = FOLDER / "alerts.yaml"
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_RUN = 'run=~"$run"'
_METRIC = re.compile(r"\bray_\w+")


@dataclass(frozen=True)
class Panel:
    """One graph.

    Attributes:
        unit: One of Grafana's, such as "s" and "bytes".
        queries: PromQL expressions, each with the legend of its series, in which `{{label}}` is a label's value.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    stacked: bool = False


def _panel(title: str, unit: str, *queries: tuple[str, str], stacked: bool = False) -> Panel:
    return Panel(title, unit, queries, stacked)


def _rate(metric: str, by: str, labels: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def _quantiles(metric: str, *, by: str = "", labels: str = "") -> tuple[tuple[str, str], ...]:
    """Median and 95th percentile of a histogram, `by` a label."""
    buckets = _rate(f"{metric}_bucket", ", ".join(filter(None, ("le", by))), labels)
    name = f"{{{{{by}}}}} " if by else ""
    return tuple(
        (f"histogram_quantile({share}, {buckets})", f"{name}{percent} %")
        for share, percent in ((0.5, 50), (0.95, 95))
    )


ROWS: dict[str, tuple[Panel, ...]] = {
    "Job": (
        _panel(
            "Prompts by state",
            "short",
            (f"sum by (run, state) (ray_corrector_job_prompts{{{_RUN}}})", "{{run}} {{state}}"),
            stacked=True,
        ),
        _panel(
            "Age of the queue",
            "s",
            (f"max by (run) (ray_corrector_job_queue_age_seconds{{{_RUN}}})", "{{run}}"),
        ),
        _panel(
            "Time of a prompt by stage",
            "s",
            *_quantiles("ray_corrector_job_stage_seconds", by="stage", labels=_RUN),
        ),
    ),
    "Lanes": (
        _panel(
            "Slots",
            "short",
            (f"sum by (run) (ray_corrector_job_slots_busy{{{_RUN}}})", "{{run}} busy"),
            (f"sum by (run) (ray_corrector_job_slots{{{_RUN}}})", "{{run}} in all"),
        ),
        _panel(
            "Steps a second",
            "short",
            (_rate("ray_corrector_job_steps_total", "run, lane", _RUN), "{{run}} {{lane}}"),
            stacked=True,
        ),
        _panel(
            "Images a second",
            "short",
            (_rate("ray_corrector_job_images_total", "run, lane", _RUN), "{{run}} {{lane}}"),
            stacked=True,
        ),
        _panel(
            "Lanes, and processes of lanes lost",
            "short",
            (f"max by (run) (ray_corrector_job_lanes{{{_RUN}}})", "{{run}} lanes"),
            (f"max by (run) (ray_corrector_job_lane_restarts{{{_RUN}}})", "{{run}} lost"),
        ),
        _panel(
            "Age of the checkpoints",
            "s",
            (
                f"time() - max by (run, lane) (ray_corrector_job_checkpoint_time_seconds{{{_RUN}}})",
                "{{run}} {{lane}}",
            ),
        ),
        _panel(
            "Reads of the cache a second",
            "short",
            (_rate("ray_corrector_job_cache_reads_total", "run, result", _RUN), "{{run}} {{result}}"),
            stacked=True,
        ),
    ),
    "Cost": (
        _panel("Device hours", "h", (f"max by (run) (ray_corrector_job_device_hours{{{_RUN}}})", "{{run}}")),
        _panel(
            "Dollars",
            "currencyUSD",
            (f"max by (run) (ray_corrector_job_dollars{{{_RUN}}})", "{{run}} spent"),
            (f"max by (run) (ray_corrector_job_budget_dollars{{{_RUN}}})", "{{run}} budget"),
        ),
        _panel(
            "Slots that are busy",
            "percentunit",
            (
                f"sum by (run) (ray_corrector_job_slots_busy{{{_RUN}}}) / sum by (run) (ray_corrector_job_slots)",
                "{{run}}",
            ),
        ),
    ),
    "Endpoint": (
        _panel(
            "Requests a second", "reqps", (_rate("ray_corrector_http_requests_total", "status"), "{{status}}")
        ),
        _panel(
            "Time of images requests",
            "s",
            *_quantiles("ray_corrector_http_request_seconds", labels='path="/v1/images/generations"'),
        ),
        _panel(
            "Errors a second",
            "reqps",
            (_rate("ray_corrector_rejections_total", "status, code"), "{{status}} {{code}}"),
        ),
        _panel(
            "Images a second",
            "short",
            (_rate("ray_corrector_images_total", "adapter"), "{{adapter}}"),
            stacked=True,
        ),
        _panel(
            "Images that wait and are drawn",
            "short",
            ("sum(ray_corrector_images_waiting)", "waiting"),
            ("sum(ray_corrector_images_drawing)", "drawn"),
        ),
        _panel("Time in the queue", "s", *_quantiles("ray_corrector_queue_seconds")),
        _panel(
            "Routes a second",
            "reqps",
            (_rate("ray_corrector_routes_total", "route"), "{{route}}"),
            stacked=True,
        ),
        _panel(
            "Adapters",
            "short",
            ("max(ray_corrector_adapters_served)", "served"),
            ("max(ray_corrector_versions_refused)", "versions refused"),
            ("sum(ray_corrector_adapters_resident)", "on devices"),
        ),
        _panel("Since the registry answered", "s", ("max(ray_corrector_registry_age_seconds)", "registry")),
    ),
    "Cluster": (
        _panel("CPU", "percent", ("avg by (instance) (ray_node_cpu_utilization)", "{{instance}}")),
        _panel(
            "GPU",
            "percent",
            ("avg by (instance, GpuIndex) (ray_node_gpus_utilization)", "{{instance}} {{GpuIndex}}"),
        ),
        _panel(
            "Memory",
            "percentunit",
            (
                "sum by (instance) (ray_node_mem_used_host) / sum by (instance) (ray_node_mem_total_host)",
                "{{instance}}",
            ),
        ),
        _panel(
            "GPU memory in use, MiB",
            "short",
            ("sum by (instance, GpuIndex) (ray_node_gram_used)", "{{instance}} {{GpuIndex}}"),
        ),
        _panel(
            "Free on the disk of the cache",
            "bytes",
            ("min by (NodeAddress) (ray_corrector_cache_disk_free_bytes)", "{{NodeAddress}}"),
        ),
        _panel(
            "Resources in use",
            "short",
            ('sum by (Name) (ray_resources{Name=~"CPU|GPU",State="USED"})', "{{Name}}"),
        ),
    ),
}
"""Panels by row."""
OF_GPU_NODES = frozenset(("ray_node_gpus_utilization", "ray_node_gram_used"))
"""Metrics that only nodes with a GPU have."""


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana imports it."""
    return {
        "uid": "prompt-corrector",
        "title": "Prompt corrector",
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source_variable(), _run_variable()]},
        "panels": list(_laid_out(ROWS.items())),
    }


def metrics_of(expressions: Iterable[str]) -> set[str]:
    """The names of Ray's metrics in PromQL expressions."""
    return {name for expression in expressions for name in _METRIC.findall(expression)}


def dashboard_expressions() -> list[str]:
    """The PromQL expressions of all panels."""
    return [expression for panels in ROWS.values() for panel in panels for expression, _ in panel.queries]


def alert_expressions() -> list[str]:
    """The PromQL expressions of all alert rules."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def _laid_out(rows: Iterable[tuple[str, Sequence[Panel]]]) -> Iterable[dict[str, Any]]:
    """The rows one below the other, with `_COLUMNS` panels side by side."""
    numbers, top = count(1), 0
    for title, panels in rows:
        yield {
            "id": next(numbers),
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": top, "w": _WIDTH * _COLUMNS, "h": 1},
        }
        for index, panel in enumerate(panels):
            line, column = divmod(index, _COLUMNS)
            place = {"x": column * _WIDTH, "y": top + 1 + line * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            yield {"id": next(numbers), **_graph(panel), "gridPos": place}
        top += 1 + -(-len(panels) // _COLUMNS) * _HEIGHT


def _graph(panel: Panel) -> dict[str, Any]:
    custom = {"fillOpacity": 20, "stacking": {"mode": "normal" if panel.stacked else "none"}}
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "targets": [
            {"refId": refer, "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for refer, (expression, legend) in zip("ABCD", panel.queries, strict=False)
        ],
    }


def _source_variable() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _run_variable() -> dict[str, Any]:
    return {
        "name": "run",
        "label": "Run",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(ray_corrector_job_prompts, run)", "refId": "run"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the dashboard; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cluster.monitoring.dashboard", description=__doc__)
    parser.add_argument("--out", type=Path, default=DASHBOARD, help="default: %(default)s")
    out = parser.parse_args(arguments).out
    out.write_text(json.dumps(dashboard(), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
