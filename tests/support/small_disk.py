"""A disk that is small enough to be filled up."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


class SmallDisk:
    """A file system of its own at `folder`, which exists, for the duration of the context.

    Where this process may not mount one, which takes root, `folder` stays as it is, and `fill` skips the test that wants it.
    """

    def __init__(self, folder: Path, size: int) -> None:
        """`size`: in bytes, kept in memory as far as they are used."""
        self.folder = folder
        self._size = size
        self._mounted = False

    def __enter__(self) -> SmallDisk:
        mount = shutil.which("mount")
        if mount is not None and os.geteuid() == 0:
            command = [mount, "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", str(self.folder)]
            self._mounted = subprocess.run(command, check=False).returncode == 0
        return self

    def __exit__(self, *_: object) -> None:
        if self._mounted:
            subprocess.run(["umount", str(self.folder)], check=True)

    def fill(self, *, leaving: int) -> None:
        """Leave room for so many more bytes."""
        if not self._mounted:
            pytest.skip("no disk to fill up: mounting one needs root")
        status = os.statvfs(self.folder)
        with (self.folder / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, status.f_bavail * status.f_frsize - leaving)

    def free(self) -> None:
        """Make room again."""
        (self.folder / "filler").unlink(missing_ok=True)
