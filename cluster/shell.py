"""Prints environment variables as shell lines, for `eval "$(python -m cluster... env)"`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping


def exports(environment: Mapping[str, str], *, unset: Iterable[str]) -> list[str]:
    """Shell lines that set `environment`, and unset the variables of `unset` that are not in it."""
    forgotten = [name for name in unset if name not in environment]
    return [
        *([f"unset {' '.join(forgotten)}"] if forgotten else []),
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
    ]
