"""What the nodes of a Ray head expose to Prometheus."""

from __future__ import annotations

import json
import re
import urllib.request
from collections import defaultdict
from pathlib import Path

from cluster.head import Head

_SAMPLE = re.compile(r"^(\w+)\{(.*)\} ", re.MULTILINE)


def exposed(head: Head) -> dict[str, list[dict[str, str]]]:
    """Name of each metric -> the labels of its series, as scraped now."""
    folder = Path(head.scratch) / "session_latest"
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for group in json.loads((folder / "prom_metrics_service_discovery.json").read_text()):
        for target in group["targets"]:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
                for name, labels in _SAMPLE.findall(answer.read().decode()):
                    found[name].append(dict(re.findall(r'(\w+)="([^"]*)"', labels)))
    return found
