"""Fields that every log line of a job has where they are known: run, lane, slot, prompt, adapter.

Ray writes the lines: as JSON where the driver has `RAY_LOGGING_CONFIG_ENCODING=JSON` in its environment, in all processes of
the job, with `job_id`, `node_id` and `worker_id` beside these fields. Otherwise they are plain text without them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

RUN_VARIABLE = "CORRECTOR_RUN"
"""Environment variable with the run's name, which all processes of a job have."""
_of_process: dict[str, str | int] = {}
_current: ContextVar[dict[str, str | int] | None] = ContextVar("log_context", default=None)


def logs_json() -> bool:
    """Whether this process logs as JSON."""
    return os.environ.get("RAY_LOGGING_CONFIG_ENCODING") == "JSON"


def name_of_run() -> str:
    """The run of this process, empty where it belongs to none."""
    return os.environ.get(RUN_VARIABLE, "")


def bind(**fields: str | int) -> None:
    """Add `fields` to all further lines of this process; the run's name is always added."""
    if not _of_process:
        _of_process["run"] = name_of_run()
        logging.setLogRecordFactory(_with_fields(logging.getLogRecordFactory()))
    _of_process.update(fields)


@contextmanager
def log_context(**fields: str | int) -> Iterator[None]:
    """Add `fields` to the lines that are logged within the block, by libraries too."""
    bind()
    token = _current.set((_current.get() or {}) | fields)
    try:
        yield
    finally:
        _current.reset(token)


def _with_fields(make: Any) -> Any:
    def make_record(*arguments: Any, **named: Any) -> logging.LogRecord:
        record: logging.LogRecord = make(*arguments, **named)
        record.__dict__.update(_of_process | (_current.get() or {}))
        return record

    return make_record
