"""read_generations: what the journal of a collection says of the images in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from corrector.exemplars.files import Limits, UnreadableFileError, read
from corrector.exemplars.generation.journal import FOLDER, JOURNAL_FILE
from corrector.exemplars.provenance import Generation

_LIMITS = Limits(file_bytes=4 * 2**20)


def read_generations(folder: Path) -> tuple[dict[str, Generation], tuple[str, ...]]:
    """The request that made each image, by the SHA-256 of its file; and a note where the journal cannot be read whole.

    Only reads; a folder without a journal has no generated images. Damaged lines are left out.

    Args:
        folder: A real path.
    """
    hidden = folder / FOLDER
    if hidden.is_symlink() or not os.path.lexists(hidden / JOURNAL_FILE):
        return {}, ()
    name = f"{FOLDER}/{JOURNAL_FILE}"
    try:
        lines = read(hidden, JOURNAL_FILE, _LIMITS, is_image=False).splitlines()
    except UnreadableFileError as problem:
        return {}, (f"{name}: {problem}; it is not known which images were generated",)
    asked: dict[Any, Mapping[str, Any]] = {}
    found: dict[str, Generation] = {}
    damaged = 0
    for line in lines:
        try:
            event = json.loads(line)
            if event["event"] == "asked":
                asked[event["request"]] = event
            elif event["event"] == "ended" and event["images"]:
                found |= _images(asked[event["request"]], event)
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
            damaged += 1
    if not damaged:
        return found, ()
    return found, (f"{name}: {damaged} of {len(lines)} lines are damaged; what they say is not known",)


def _images(asked: Mapping[str, Any], ended: Mapping[str, Any]) -> Iterator[tuple[str, Generation]]:
    share = Decimal(asked["price"]) * ended["paid_images"] / len(ended["images"])
    for image in ended["images"]:
        made = Generation(
            model=asked["model"],
            host=asked.get("host"),
            prompt=asked["prompt"],
            revised_prompt=image.get("revised_prompt"),
            request_id=ended.get("request_id") or asked["id"],
            dollars=round(float(share), 6),
        )
        yield str(image["sha256"]), made
