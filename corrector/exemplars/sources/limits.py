"""Bounds on what an untrusted source may cost, and the error of one that cannot be used."""

from dataclasses import dataclass, field

from corrector.exemplars.files import Limits


class UnusableSourceError(Exception):
    """Why a source cannot be used and what to do about it; `resolve_source` names the source."""


@dataclass(frozen=True)
class SourceLimits:
    """Bounds on one source.

    Attributes:
        entries: Files and folders of an archive, objects below a prefix, or files of a dataset.
        source_bytes: Size of an archive, or of all images of a prefix or a dataset.
        unpacked_bytes: Size of all entries of an archive when they are unpacked.
        ratio: Unpacked size of an archive over its size; counts above `small_bytes` only.
        small_bytes: Unpacked size that an archive of any size may have.
        redirects: Redirects of one URL.
        seconds: Duration of one download from the web.
        files: Bounds on one file.
    """

    entries: int = 4096
    source_bytes: int = 2**30
    unpacked_bytes: int = 2**31
    ratio: int = 100
    small_bytes: int = 2**28
    redirects: int = 5
    seconds: float = 600.0
    files: Limits = field(default_factory=Limits)

    def require_unpacked(self, unpacked: int, packed: int) -> None:
        """Raises UnusableSourceError where `packed` bytes of an archive unpack to too many bytes."""
        allowed = min(self.unpacked_bytes, max(self.small_bytes, self.ratio * packed))
        if unpacked > allowed:
            raise UnusableSourceError(
                f"unpacks to more than {allowed / 2**20:.4g} MiB, the limit for an archive of its size; "
                "pack only the images, at most 256 of them"
            )

    def require_entries(self, count: int) -> None:
        """Raises UnusableSourceError where a source has too many entries."""
        if count > self.entries:
            raise UnusableSourceError(
                f"holds more than {self.entries} entries; keep only the best images in it"
            )

    def require_source_bytes(self, count: int) -> None:
        """Raises UnusableSourceError where a source is too large to be read or fetched."""
        if count > self.source_bytes:
            raise UnusableSourceError(
                f"is larger than {self.source_bytes / 2**20:.4g} MiB; keep only the best images in it"
            )
