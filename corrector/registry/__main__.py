"""`python -m corrector.registry COMMAND`: list, review, export and check registered adapters."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from corrector.errors import UserError
from corrector.registry.commands import run
from corrector.settings import Settings
from corrector.storage import Storage

_WIDTH = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0: done, 1: `verify` found wrong bytes, 2: the user must act."""
    try:
        settings = Settings.from_environment()
        place = {
            "tracking_uri": settings.tracking_uri,
            "root": Storage.of(settings.storage).disk / "registry",
        }
        return run(arguments, place, _console())
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _console() -> Console:
    """A console as wide as the terminal; for a file or a pipe, wide enough for a table, and lines are not wrapped."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
