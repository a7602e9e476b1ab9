"""The fields that log lines have."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from ray._common.formatters import JSONFormatter

from jobs import log_context
from jobs.correction.progress import ProgressLog


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, by the formatter that Ray uses; afterwards logging is as it was."""
    factory, written = logging.getLogRecordFactory(), io.StringIO()
    monkeypatch.setattr(log_context, "_of_process", {})
    handler, root = logging.StreamHandler(written), logging.getLogger()
    handler.setFormatter(JSONFormatter())
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)
    logging.setLogRecordFactory(factory)


def test_a_line_has_the_fields_of_its_process_and_of_the_block_around_it(lines: io.StringIO) -> None:
    library = logging.getLogger("some.library")
    log_context.bind(run="night", lane="lane-1")
    with log_context.log_context(prompt="person", adapter="person"):
        with log_context.log_context(slot=3):
            library.warning("inside")
        library.warning("between")
    library.warning("outside")
    fields = ("run", "lane", "prompt", "adapter", "slot")
    found = [[line.get(field) for field in fields] for line in parsed(lines)]
    assert found == [
        ["night", "lane-1", "person", "person", 3],
        ["night", "lane-1", "person", "person", None],
        ["night", "lane-1", None, None, None],
    ]


@pytest.mark.parametrize("encoding", ["JSON", "TEXT"])
def test_the_progress_of_a_job_is_logged_or_printed(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setenv("RAY_LOGGING_CONFIG_ENCODING", encoding)
    monkeypatch.setenv("CORRECTOR_RUN", "night")
    printed = io.StringIO()
    ProgressLog({"w": "person"}, printed).line("w", "corrected", "found")
    if encoding == "TEXT":
        assert printed.getvalue().split()[1:] == ["person", "corrected", "found"]
        assert not lines.getvalue()
        return
    assert not printed.getvalue()
    (line,) = parsed(lines)
    assert [line[key] for key in ("run", "prompt", "state")] == ["night", "person", "corrected"]
    assert line["message"] == "person: corrected found"


def parsed(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]
