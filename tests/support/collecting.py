"""Collecting exemplars from the stand-in of an images API, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from corrector.exemplars.__main__ import main
from tests.support.commands import run
from tests.support.images_api import ImagesApiServer

PROMPT = "a person lying on the grass"


def arguments(api: ImagesApiServer, folder: Path, *options: str) -> list[str]:
    """Of `generate`: options by name and value, in place of the defaults."""
    given = dict(zip(options[::2], options[1::2], strict=True))
    defaults = {
        "--prompt": PROMPT,
        "--base-url": api.url,
        "--model": "world",
        "--size": "64x64",
        "--count": "3",
        "--price": "0.04",
        "--parallel": "1",
    }
    return ["generate", str(folder), *(part for pair in (defaults | given).items() for part in pair)]


def collect(api: ImagesApiServer, folder: Path, *options: str) -> CompletedProcess[str]:
    """Run `generate` with these options."""
    return run(main, *arguments(api, folder, *options), "--yes")


def journal(folder: Path, event: str) -> list[dict[str, Any]]:
    """The journal's entries of this event."""
    lines = (folder / ".generation/journal.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]
