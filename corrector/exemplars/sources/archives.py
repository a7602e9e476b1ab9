"""Reads untrusted zip and tar archives: only regular files, in bounded number and size, and no archive inside another."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO

from corrector.exemplars.files import NotAnImageError, UnreadableFileError, printable
from corrector.exemplars.sources.images import Entry, read_entry, safe_parts
from corrector.exemplars.sources.limits import SourceLimits, UnusableSourceError

_HEAD_BYTES = 512
_TAR_MAGIC = slice(257, 262)
_HEADER_BYTES = 8192
_ZIP_END_BYTES = 2**17
"""More than the end of a zip file with the longest comment."""
_DIRECTORY_BYTES_PER_ENTRY = 256
_AGAIN = "copy or pack it again"


def archive_entries(file: BinaryIO, limits: SourceLimits) -> Generator[Entry, None, None]:
    """The regular files of the archive in `file`; each must be read before the next is asked for.

    Its kind is that of its first bytes: zip, tar, or gzip with a tar in it.

    Raises:
        UnusableSourceError: It is no such archive, damaged, encrypted, over a limit, or contains an entry that is no
            regular file or leads outside.
    """
    size = file.seek(0, io.SEEK_END)
    limits.require_source_bytes(size)
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    with _explained():
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            yield from _zip_entries(file, size, limits)
        elif head.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield from _tar_entries(_BoundedReader(unpacked, size, limits), limits)
        elif head[_TAR_MAGIC] == b"ustar":
            yield from _tar_entries(_BoundedReader(file, size, limits), limits)
        else:
            raise UnusableSourceError(_foreign(head))


def _zip_entries(file: BinaryIO, size: int, limits: SourceLimits) -> Iterator[Entry]:
    bounded = _BoundedDirectory(file, size, limits)
    with zipfile.ZipFile(bounded) as archive:
        bounded.is_read = True
        members = archive.infolist()
        limits.require_entries(len(members))
        limits.require_unpacked(sum(member.file_size for member in members), size)
        for member in members:
            _require_regular(member)
        for member in members:
            if not member.is_dir():
                yield member.filename, partial(_read_zipped, archive, member, limits)


def _require_regular(member: zipfile.ZipInfo) -> None:
    safe_parts(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _no_regular_file(member.filename)
    if member.flag_bits & 0x1:
        raise UnusableSourceError("is encrypted; pack it again without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # zipfile does not bound what one read of the other methods unpacks.
        raise UnusableSourceError("is not packed by the usual method, Deflate; pack it again")


def _read_zipped(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limits: SourceLimits) -> bytes:
    with _explained(), archive.open(member) as stream:
        return read_entry(stream.read, member.filename, member.file_size, limits.files)


def _tar_entries(file: _BoundedReader, limits: SourceLimits) -> Iterator[Entry]:
    with tarfile.open(fileobj=file, mode="r:") as archive:  # type: ignore[call-overload]  # it needs no write()
        count = 0
        while (member := archive.next()) is not None:
            archive.members.clear()  # it keeps them all otherwise
            count += 1
            limits.require_entries(count)
            safe_parts(member.name)
            if member.isreg() and not member.issparse():
                yield member.name, partial(_read_tarred, file, member, limits)
            elif not member.isdir():
                raise _no_regular_file(member.name)
        # tarfile ends without an error where the archive is cut between two entries, or a header is damaged.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise UnusableSourceError(f"is cut off or damaged; {_AGAIN}")
        while file.read(_HEADER_BYTES):  # a gzip file has its checksum at its end
            pass


def _read_tarred(file: _BoundedReader, member: tarfile.TarInfo, limits: SourceLimits) -> bytes:
    with _explained():
        return read_entry(file.content(member), member.name, member.size, limits.files)


class _BoundedReader:
    """A tar file, unpacked while tarfile reads it; over a limit it raises UnusableSourceError.

    One read is bounded, too: tarfile reads an extended header at once, of whatever size it says that it has.
    """

    def __init__(self, file: BinaryIO | gzip.GzipFile, packed: int, limits: SourceLimits) -> None:
        self._file, self._packed, self._limits = file, packed, limits
        self.tell: Callable[[], int] = file.tell

    def seek(self, offset: int) -> int:
        self._limits.require_unpacked(offset, self._packed)
        return self._file.seek(offset)

    def read(self, size: int) -> bytes:
        if size > _HEADER_BYTES:
            raise UnusableSourceError(
                f"has a header of more than {_HEADER_BYTES} bytes; pack the images again, without attributes"
            )
        self._limits.require_unpacked(self.tell() + size, self._packed)
        return self._file.read(size)

    def content(self, member: tarfile.TarInfo) -> Callable[[int], bytes]:
        """Reads on from the beginning of `member`'s bytes."""
        self._limits.require_unpacked(member.offset_data + member.size, self._packed)
        self._file.seek(member.offset_data)
        return self._file.read


class _BoundedDirectory:
    """A zip file whose directory, which zipfile reads at once, may not be larger than the allowed entries need.

    Attributes:
        is_read: Whether the directory has been read; the bound ends.
    """

    def __init__(self, file: BinaryIO, size: int, limits: SourceLimits) -> None:
        self._file, self._size, self._limits = file, size, limits
        self.is_read = False
        self.seek: Callable[..., int] = file.seek
        self.tell: Callable[[], int] = file.tell
        self.seekable: Callable[[], bool] = file.seekable

    def read(self, size: int = -1) -> bytes:
        length = self._size - self.tell() if size < 0 else size
        most = max(_ZIP_END_BYTES, _DIRECTORY_BYTES_PER_ENTRY * self._limits.entries)
        if length > most and not self.is_read:
            self._limits.require_entries(self._limits.entries + 1)
        return self._file.read(length)


@contextmanager
def _explained() -> Iterator[None]:
    """Turns the many exceptions of the standard library for damaged archives into UnusableSourceError."""
    try:
        yield
    except (UnusableSourceError, NotAnImageError, UnreadableFileError, GeneratorExit):
        raise
    except NotImplementedError as error:
        raise UnusableSourceError(f"is packed in a way that is not read ({error}); pack it again") from None
    except Exception as error:
        reason = printable(str(error))[:120] or type(error).__name__
        raise UnusableSourceError(f"is cut off or damaged ({reason}); {_AGAIN}") from None


def _no_regular_file(name: str) -> UnusableSourceError:
    return UnusableSourceError(
        f'its entry "{printable(name)[:100]}" is a link or a device, not a file; pack the image itself'
    )


def _foreign(head: bytes) -> str:
    if not head:
        return f"is empty (0 bytes); {_AGAIN}"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return (
            "is a web page and no archive; open the address in a browser: it may ask for a login, or a signature "
            "may have expired"
        )
    return "is no archive by its content; expected .zip, .tar or .tar.gz"
