"""Reads the records of a run from disk, and the facts in its `result.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.record.correction_record import RECORD_FILE, CorrectionRecord

RESULT_FILE = "result.json"


def read_run(folder: Path) -> tuple[list[tuple[Path, CorrectionRecord]], dict[str, Any]]:
    """The records at any depth below `folder`, and the facts of its `result.json`, for `write_report`.

    The order is that of `result.json`; records that it does not name come last, by path.

    Raises:
        UserError: There is no record, or one cannot be read.
    """
    records = [
        (path.parent, CorrectionRecord.load(path.parent))
        for path in sorted(folder.rglob(RECORD_FILE))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not records:
        raise UserError(
            f"{folder}: no {RECORD_FILE} in it or below; expected the folder of a run, such as runs/ID"
        )
    result = _result(folder / RESULT_FILE)
    prompts = [prompt for prompt in result.get("prompts", ()) if isinstance(prompt, dict)]
    order = {prompt.get("work_id"): place for place, prompt in enumerate(prompts)}
    records.sort(key=lambda entry: order.get(entry[1].work_id, len(order)))
    job: dict[str, Any] = {key: result[key] for key in ("run", "batch", "base") if key in result}
    adapters = {
        prompt["name"]: adapter_label(**prompt["adapter"]) for prompt in prompts if prompt.get("adapter")
    }
    job["adapters"] = adapters
    return records, job


def adapter_label(name: str, version: str, aliases: tuple[str, ...] | list[str] = (), **_: Any) -> str:
    """The text for a registered adapter: "NAME version 3 (candidate)"."""
    return f"{name} version {version}" + (f" ({', '.join(aliases)})" if aliases else "")


def _result(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read: {error}; submit the batch again to write it anew"
        ) from error
    return found if isinstance(found, dict) else {}
