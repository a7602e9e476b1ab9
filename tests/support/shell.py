"""What a shell makes of the export lines that a command prints."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping


def exported(lines: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of programs started by a shell of `environment` that has read `lines`."""
    printed = subprocess.run(
        ["sh", "-c", f"{lines}\nexec env -0"], env=environment, capture_output=True, text=True, check=True
    )
    return dict(entry.split("=", 1) for entry in printed.stdout.split("\0") if entry)
