"""Another job that holds the lock of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.paths import PROJECT

_HOLD = """
import sys
from jobs.inputs.run_folder import RunFolder
from jobs.inputs.run_lock import locked
with locked(RunFolder(sys.argv[1], "people")):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def lock_held(storage: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of the run `people`; it is killed at the end."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, storage],
        cwd=PROJECT,
        env=os.environ | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        yield holder
        holder.kill()
