"""`python -m corrector.report RUN_FOLDER [--out FILE]`: write the report of a run again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from corrector.errors import UserError
from corrector.report.page import write_report
from corrector.report.run_folder import read_run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m corrector.report", description="Write the report of a run again."
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN_FOLDER", help="a run's folder, or any folder of records"
    )
    parser.add_argument("--out", type=Path, help="the file to write (default: report.html in the folder)")
    parser.add_argument("--title", help="the page's title (default: the run's name)")
    options = parser.parse_args(arguments)
    try:
        records, job = read_run(options.run)
        title = options.title or f"Corrections: {job.get('run', options.run.resolve().name)}"
        print(write_report(records, options.out or options.run / "report.html", title=title, job=job))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
