"""Writing batch files and reading their mistakes back."""

from pathlib import Path

import pytest

from corrector.prompts import BatchError, BatchErrors, load_batch
from corrector.settings import Settings

ENTRY = (
    "  - prompt: a person lying on the grass\n    exemplars: exemplars/lying\n    guard_prompts: [a dog]\n"
)
"""A valid entry of a YAML file's prompts, three lines."""


def write(folder: Path, name: str, text: str | bytes) -> Path:
    """A file in `folder`."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def mistakes(folder: Path, name: str, text: str | bytes, settings: Settings) -> list[BatchError]:
    """The mistakes that loading a file with this text reports."""
    path = write(folder, name, text)
    with pytest.raises(BatchErrors) as raised:
        load_batch(path, settings=settings)
    assert str(raised.value) == "\n".join(map(str, raised.value.errors))
    return raised.value.errors


def places(errors: list[BatchError]) -> list[tuple[int | None, str]]:
    """Line and field of each mistake."""
    return [(error.line, error.field) for error in errors]


def only(errors: list[BatchError]) -> BatchError:
    """The one mistake."""
    assert len(errors) == 1, "\n".join(map(str, errors))
    return errors[0]
