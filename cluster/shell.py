"""An environment as a shell's lines, for `eval "$(python -m cluster... env)"`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping


def exports(environment: Mapping[str, str], *, unset: Iterable[str]) -> list[str]:
    """The lines that set `environment` and forget the variables of `unset` that it does not hold."""
    forgotten = [name for name in unset if name not in environment]
    return [
        *([f"unset {' '.join(forgotten)}"] if forgotten else []),
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
    ]
