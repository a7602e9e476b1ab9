"""A snapshot as a file: an endpoint that starts while the registry is down serves what it served before."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from serving.catalogue.snapshot import ServedAdapter, Snapshot

_logger = logging.getLogger(__name__)
_ADAPTERS = TypeAdapter(dict[str, ServedAdapter])


def save(snapshot: Snapshot, path: Path) -> None:
    """Replaces the file at once. A disk that does not take it costs the next start, not this one: it is logged."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(_ADAPTERS.dump_json(dict(snapshot.adapters), indent=1))
        partial.replace(path)
    except OSError as error:
        _logger.warning("%s: what is served cannot be kept: %s", path, error)
        partial.unlink(missing_ok=True)


def load(path: Path) -> Snapshot:
    """The snapshot that was saved, with number 0; empty where there is none, or the file is damaged."""
    try:
        return Snapshot(0, _ADAPTERS.validate_json(path.read_bytes()))
    except FileNotFoundError:
        pass
    except (OSError, ValidationError) as error:
        _logger.warning("%s: not read: %s", path, error)
    return Snapshot()
