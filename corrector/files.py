"""Writes files and folders whole or not at all, also with concurrent writers; digests of files; folders bounded in size."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OCCUPIED = (errno.EEXIST, errno.ENOTEMPTY)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: str | bytes, *, durable: bool = False, mode: int = 0o666) -> Path:
    """Write a file in one step and return its path: a reader sees the old content or the new one.

    Text is written as UTF-8. The content is first written to a temporary file in the same folder, which only a killed
    process leaves behind.

    Args:
        durable: Return only when the content and its name would survive a power failure (fsync).
        mode: The file's permissions, less the process's umask.

    Raises:
        OSError: The folder is missing, full or read-only.
    """
    partial = _sibling(path)
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


@contextmanager
def staging_folder(destination: Path) -> Iterator[Path]:
    """A new folder beside `destination`, for `publish_folder` and `replace_folder`; removed at the end of the context.

    Missing parents of `destination` are made.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = _sibling(destination)
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish_folder(folder: Path, destination: Path) -> Path:
    """Rename `folder` to `destination` on the same disk, and return `destination`.

    Raises:
        FileExistsError: `destination` exists and is not an empty folder.
    """
    try:
        return folder.rename(destination)
    except OSError as error:
        if error.errno in (*_OCCUPIED, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination)) from error
        raise


def replace_folder(folder: Path, destination: Path) -> Path:
    """Rename `folder` to `destination` on the same disk, in place of a folder that is there, and return `destination`.

    The old folder is renamed before it is removed, so a reader sees the old content, none, or the new content. Of several
    concurrent callers, the last one's folder stays.
    """
    while True:
        try:
            return publish_folder(folder, destination)
        except FileExistsError:
            with (
                staging_folder(destination) as old,
                suppress(FileNotFoundError),
            ):  # another caller was faster
                destination.rename(old / "replaced")


def remove_least_recently_used(paths: Iterable[Path], budget: int, *, spared_since: float = math.inf) -> None:
    """Remove files and folders, the earliest modified first, until the rest has at most `budget` bytes.

    A reader sees a whole folder or none. What another process removes meanwhile, or owns, is no error.

    Args:
        spared_since: What was modified later stays, in seconds since 1970.
    """
    found = []
    for path in paths:
        with suppress(OSError):
            status = path.stat()
            size = status.st_size
            if stat.S_ISDIR(status.st_mode):
                size += sum(each.lstat().st_size for each in path.rglob("*"))
            found.append((status.st_mtime, size, path))
    excess = sum(size for _, size, _ in found) - budget
    for modified, size, path in sorted(found):
        if excess <= 0 or modified > spared_since:
            return
        with suppress(OSError):
            if path.is_dir():
                with staging_folder(path) as removed:
                    path.rename(removed / path.name)
            else:
                path.unlink()
        excess -= size


def _sibling(path: Path) -> Path:
    """A name in the same folder that no other thread or process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")


def disk_space(folder: Path) -> tuple[int, int]:
    """All and free bytes of the disk on which `folder` is, or would be where it does not exist."""
    usage = shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists()))
    return usage.total, usage.free
