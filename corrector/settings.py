"""Settings from environment variables: folders, addresses and a price."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from corrector.errors import UserError
from corrector.s3 import is_s3_url

_IMAGE_CACHE_GIB = 32
_EXEMPLAR_CACHE_GIB = 16


@dataclass(frozen=True)
class Settings:
    """The settings of the environment; nothing is read at import.

    Attributes:
        cache: `CORRECTOR_CACHE`, folder of the cache by content hash (text embeddings, latents,
            reference statistics). Default: `corrector` in `XDG_CACHE_HOME`, or in `~/.cache`.
        storage: `CORRECTOR_RUNS`, folder or S3 URL with one folder per job. Default: `runs` in the working directory.
        database: `CORRECTOR_DATABASE`, SQLAlchemy URL of the database for locks, or None. Not shown: it may be secret.
        tracking_uri: `MLFLOW_TRACKING_URI`, or None for the local registry. Not shown: it may be secret.
        exemplar_roots: `CORRECTOR_EXEMPLAR_ROOTS`, folders (separated as in PATH) besides the batch file's
            own in which exemplar folders may lie. Default: the working directory, unless that is `/`.
        image_cache_bytes: `CORRECTOR_IMAGE_CACHE_GIB` in bytes: how much of a cache's folder the base's images and their
            features may take. Default: 32 GiB.
        exemplar_cache_bytes: `CORRECTOR_EXEMPLAR_CACHE_GIB` in bytes: how much of the cache's folder images from archives, S3
            and the web may take. Default: 16 GiB.
        device_hour_dollars: `CORRECTOR_DEVICE_HOUR_DOLLARS`, price of an hour of one GPU, or of one CPU worker where there is
            no GPU, or None.
        allow_private_urls: `CORRECTOR_ALLOW_PRIVATE_URLS`, whether exemplars may come from http:// URLs, and from hosts with
            private, loopback or link-local addresses. Default: no.
    """

    cache: Path
    storage: str
    tracking_uri: str | None = field(repr=False)
    exemplar_roots: tuple[Path, ...]
    database: str | None = field(default=None, repr=False)
    image_cache_bytes: int = _IMAGE_CACHE_GIB * 2**30
    exemplar_cache_bytes: int = _EXEMPLAR_CACHE_GIB * 2**30
    device_hour_dollars: float | None = None
    allow_private_urls: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """The settings in `environment` (default: the process's); an empty variable counts as unset.

        Raises:
            UserError: A folder's variable names a file, a home folder is needed and there is none, a price or a size is no
                number, or a switch is neither 0 nor 1.
        """
        variables = os.environ if environment is None else environment
        return cls(
            cache=_folder(variables, "CORRECTOR_CACHE") or _default_cache(variables),
            storage=_storage(variables),
            database=variables.get("CORRECTOR_DATABASE") or None,
            tracking_uri=variables.get("MLFLOW_TRACKING_URI") or None,
            exemplar_roots=_exemplar_roots(variables),
            image_cache_bytes=_bytes(variables, "CORRECTOR_IMAGE_CACHE_GIB", _IMAGE_CACHE_GIB),
            exemplar_cache_bytes=_bytes(variables, "CORRECTOR_EXEMPLAR_CACHE_GIB", _EXEMPLAR_CACHE_GIB),
            device_hour_dollars=_number(
                variables, "CORRECTOR_DEVICE_HOUR_DOLLARS", "price; give a number of dollars, such as 2.5"
            ),
            allow_private_urls=_switch(variables, "CORRECTOR_ALLOW_PRIVATE_URLS"),
        )


def _folder(variables: Mapping[str, str], variable: str) -> Path | None:
    written = variables.get(variable)
    if not written:
        return None
    path = _absolute(written, variable)
    if path.exists() and not path.is_dir():
        raise UserError(f'{variable}: "{path}" is a file; name a folder')
    return path


def _storage(variables: Mapping[str, str]) -> str:
    written = variables.get("CORRECTOR_RUNS", "")
    if is_s3_url(written):
        return written
    return str(_folder(variables, "CORRECTOR_RUNS") or Path.cwd() / "runs")


def _default_cache(variables: Mapping[str, str]) -> Path:
    caches = variables.get("XDG_CACHE_HOME") or "~/.cache"
    return _absolute(caches, "CORRECTOR_CACHE") / "corrector"


def _exemplar_roots(variables: Mapping[str, str]) -> tuple[Path, ...]:
    variable = "CORRECTOR_EXEMPLAR_ROOTS"
    written = [part for part in variables.get(variable, "").split(os.pathsep) if part]
    if written:
        return tuple(_absolute(part, variable) for part in written)
    working = Path.cwd()
    return () if working == Path(working.anchor) else (working,)


def _bytes(variables: Mapping[str, str], variable: str, default_gib: int) -> int:
    gib = _number(variables, variable, f"size; give a number of GiB, such as {default_gib}")
    return int(2**30 * (default_gib if gib is None else gib))


def _number(variables: Mapping[str, str], variable: str, expected: str) -> float | None:
    """A number of at least 0; None where the variable is unset."""
    written = variables.get(variable)
    try:
        number = float(written) if written else None
    except ValueError:
        number = math.nan
    if number is None or 0 <= number < math.inf:
        return number
    raise UserError(f'{variable}: "{written}" is no {expected}')


def _switch(variables: Mapping[str, str], variable: str) -> bool:
    written = variables.get(variable) or "0"
    if written not in ("0", "1"):
        raise UserError(f'{variable}: "{written}" is neither 0 nor 1')
    return written == "1"


def _absolute(written: str, variable: str) -> Path:
    try:
        return Path(written).expanduser().absolute()
    except RuntimeError:
        raise UserError(
            f'{variable}: no home folder to expand "{written}"; set {variable} to a whole path'
        ) from None
