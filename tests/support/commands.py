"""Commands of this project, run in this process: what they print and how they end."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess


def run(main: Callable[[list[str]], int], *arguments: str | Path) -> CompletedProcess[str]:
    """What `main` returns for these arguments, and what it prints."""
    given = list(map(str, arguments))
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        try:
            status = main(given)
        except SystemExit as end:  # argparse: --help, or arguments that it does not take
            status = end.code if isinstance(end.code, int) else 1
    return CompletedProcess(given, status, output.getvalue(), errors.getvalue())
