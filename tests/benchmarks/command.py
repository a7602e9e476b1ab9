"""What the commands have in common: arguments, the table that they print, the JSON that they write."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from rich.console import Console
from rich.table import Table

from corrector.errors import UserError
from tests.benchmarks.machine import Limits, describe, measure_limits
from tests.benchmarks.reference import script_version
from tests.benchmarks.subject import MODELS, Subject

Row = Mapping[str, Any]
"""One line of results: JSON's names and values."""


def parser(description: str, *, model: str = "embedded") -> argparse.ArgumentParser:
    """The arguments that every command takes; ``model`` is the default where there is no GPU."""
    parser = argparse.ArgumentParser(description=description)
    gpu = torch.cuda.is_available()
    parser.add_argument("--model", choices=MODELS, default="sd3-medium" if gpu else model)
    parser.add_argument("--layers", type=int, help="joint blocks (default: all of the model's)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if gpu else "cpu")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="the base's (default: bfloat16 on cuda, float32 on cpu)",
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument(
        "--limit-seconds",
        type=float,
        default=0.5,
        help="for measuring each of the rates that bound the machine",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file for the figures")
    parser.add_argument(
        "--reference", type=Path, metavar="PATH",
        help="checkout of huggingface/diffusers: time its training script on the same work too",
    )  # fmt: skip
    return parser


def add_compile(parser: argparse.ArgumentParser) -> None:
    """The argument of those commands that can compile."""
    parser.add_argument(
        "--compile", nargs="?", const="inductor", default=False, metavar="BACKEND",
        help="compile the transformer's blocks, with torch.compile's inductor or another backend",
    )  # fmt: skip


def check_compiled(asked: str | bool, compiled: bool) -> None:
    """Raises :class:`UserError` where blocks should be compiled and are not: figures would go under a wrong name."""
    if asked and not compiled:
        raise UserError(f"--compile {asked}: does not work on this machine; the warning above says why")


def be_quiet() -> None:
    """Keep the libraries from chatting."""
    for libraries in (diffusers.utils.logging, transformers.utils.logging):
        libraries.set_verbosity_error()
        libraries.disable_progress_bar()


def subject(options: argparse.Namespace) -> Subject:
    """What the arguments ask for; sets the number of threads, and keeps the libraries from chatting."""
    be_quiet()
    if options.threads:
        torch.set_num_threads(options.threads)
    dtype = options.dtype or ("bfloat16" if options.device == "cuda" else "float32")
    return Subject(
        options.model,
        options.layers,
        torch.device(options.device),
        getattr(torch, dtype),
        reference_lengths=options.reference is not None,
    )


class Report:
    """Collects a command's results; prints them as a table and writes them as JSON."""

    def __init__(self, benchmark: str, options: argparse.Namespace, subject: Subject) -> None:
        """Measures the machine's limits, before anything else is on the device."""
        self.console = Console(width=None if sys.stdout.isatty() else 120)
        self.limits: Limits = measure_limits(subject.device, subject.dtype, seconds=options.limit_seconds)
        self._benchmark = benchmark
        self._arguments = {
            key: value for key, value in vars(options).items() if key not in ("out", "reference")
        }
        self._arguments |= {"dtype": str(subject.dtype).removeprefix("torch.")}
        if options.reference is not None:
            self._arguments["reference"] = script_version(options.reference)
        self._machine = describe(subject.device)
        self._out: Path | None = options.out
        self.rows: list[Row] = []
        self.console.print(
            f"{self._machine['name']}, {self._machine['threads']} threads; measured limit "
            f"{self.limits.matrix_rate / 1e12:.3g} TFLOP/s, {self.limits.bandwidth / 1e9:.3g} GB/s"
        )

    def add(self, row: Row) -> None:
        """Takes up one result and writes the file anew, so that an interrupted run leaves what it has measured."""
        self.rows.append(row)
        self._write()

    def mfu(self, flops: float, seconds: float) -> dict[str, float | None]:
        """Model FLOP/s over the measured matrix rate, and over the vendor's where that is known."""
        vendor = self.limits.vendor_rate
        return {
            "mfu": flops / seconds / self.limits.matrix_rate,
            "mfu_of_vendor_rate": None if vendor is None else flops / seconds / vendor,
        }

    def show(self, title: str, columns: Mapping[str, str]) -> None:
        """Prints the results that have the first of ``columns``, key to heading; columns that are empty are left out."""
        rows = [row for row in self.rows if next(iter(columns)) in row]
        present = {
            key: heading for key, heading in columns.items() if any(row.get(key) is not None for row in rows)
        }
        table = Table(title=title)
        for heading in present.values():
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(*(_cell(row.get(key)) for key in present))
        self.console.print(table)

    def _write(self) -> None:
        if self._out is None:
            return
        write_results(
            self._out,
            {
                "benchmark": self._benchmark,
                "machine": self._machine,
                "arguments": self._arguments,
                "limits": asdict(self.limits),
                "results": self.rows,
            },
        )


def cpu_results(benchmark: str, options: argparse.Namespace, rows: Sequence[Row]) -> None:
    """Writes the rows of a command that knows CPUs alone to its ``--out``, if it has one."""
    if options.out is None:
        return
    arguments = {key: value for key, value in vars(options).items() if key != "out"}
    machine = describe(torch.device("cpu"))
    write_results(
        options.out, {"benchmark": benchmark, "machine": machine, "arguments": arguments, "results": rows}
    )


def write_results(out: Path, content: Mapping[str, Any]) -> None:
    """Writes a command's JSON file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
