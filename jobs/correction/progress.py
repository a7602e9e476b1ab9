"""The output of a correction on the terminal: a line per prompt and change, and a table at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.correction.results import PromptResult
from jobs.lanes.queue import Progress
from jobs.log_context import log_context, logs_json

logger = logging.getLogger(__name__)


class ProgressLog:
    """Prints a line for a prompt when its state changes, and every `every` seconds while it trains or is sampled."""

    def __init__(self, names: Mapping[str, str], stream: TextIO, *, every: float = 10.0) -> None:
        self._names = names
        self._width = max((len(name) for name in names.values()), default=0)
        self._stream = stream
        self._every = every
        self._started = time.monotonic()
        self._printed: dict[str, tuple[str, float]] = {}

    def update(self, snapshot: Sequence[Progress]) -> None:
        """Print what is new in `snapshot`."""
        now = time.monotonic()
        for each in snapshot:
            state, at = self._printed.get(each.work_id, ("waiting", self._started))
            if each.state == state and (each.state not in ("training", "sampling") or now - at < self._every):
                continue
            self._printed[each.work_id] = (each.state, now)
            self.line(each.work_id, each.state, _describe(each))

    def line(self, work_id: str, state: str, detail: str = "", adapter: str | None = None) -> None:
        """Print one line: seconds since the start, prompt, state, detail; log it instead where logs are JSON."""
        seconds = time.monotonic() - self._started
        name = self._names[work_id]
        if logs_json():
            with log_context(prompt=name, adapter=adapter or name, state=state):
                logger.info("%s", f"{name}: {state} {detail}".rstrip())
            return
        print(
            f"{seconds:7.1f}s  {name:<{self._width}}  {state:<10} {detail}".rstrip(),
            file=self._stream,
            flush=True,
        )


def _describe(progress: Progress) -> str:
    if progress.state == "training" and progress.step:
        loss = "" if progress.loss is None else f"  loss {progress.loss:.4f}"
        return f"{progress.step}/{progress.steps}{loss}"
    return progress.detail


def print_table(results: Sequence[PromptResult], console: Console) -> None:
    """The outcome of a run, a row per prompt."""
    table = Table(header_style="bold")
    for column in ("prompt", "status", "adapter"):
        table.add_column(column, overflow="fold")
    for column in ("fid before", "fid after", "difference", "p", "diversity"):
        table.add_column(column, justify="right")
    for result in results:
        adapter = f"{result.adapter.name} v{result.adapter.version}" if result.adapter else "-"
        table.add_row(escape(result.prompt), _status(result), adapter, *_figures(result))
    console.print(table)
    for result in results:
        for reason in (*([result.error] if result.error else []), *result.reasons):
            console.print(f"  {result.name}: {reason}", style="yellow", markup=False, highlight=False)


def _status(result: PromptResult) -> str:
    colour = {"corrected": "green", "rejected": "yellow", "failed": "red"}.get(result.status, "dim")
    grade = f" ({result.grade})" if result.grade else ""
    return f"[{colour}]{result.status}{grade}[/{colour}]"


def _figures(result: PromptResult) -> list[str]:
    card = result.scorecard
    if card is None or not card.get("distances"):
        return ["-"] * 5
    first, interval = card["distances"][0], card["distances"][0]["fid_difference"]
    gating = [each["ratio"] for each in card["diversity"] if each["gates"]]
    return [
        f"{first['fid_base']:.0f}",
        f"{first['fid_corrected']:.0f}",
        f"{interval['value']:.0f} [{interval['low']:.0f}, {interval['high']:.0f}]",
        f"{max(each['p'] for each in card['nearer']):.4f}",
        f"{min(gating):.2f}" if gating else "-",
    ]
