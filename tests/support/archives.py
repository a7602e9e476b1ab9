"""Archives of files, made as an archiver or as an attacker would."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Literal

from tests.support.pictures import content, drawn

PICTURES = {f"{number}.png": content(drawn(number=number)) for number in range(6)}


def zipped(files: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, body in files.items():
            archive.writestr(zipfile.ZipInfo(name), body, compress_type=method)
    return stream.getvalue()


def tarred(
    files: Mapping[str, bytes],
    *special: tarfile.TarInfo,
    mode: Literal["w", "w:gz"] = "w",
    form: int = tarfile.PAX_FORMAT,
) -> bytes:
    """A tar archive with these files, then with entries without content; `mode` "w:gz" packs it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=form) as archive:
        for name, body in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
        for member in special:
            archive.addfile(member)
    return stream.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """An entry that is no file."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member
