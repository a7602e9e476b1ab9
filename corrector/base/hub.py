"""Pipelines on the Hugging Face hub: downloads into its local cache, and explanations of failures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from corrector.errors import UserError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_IGNORED = ["*.bin", "*.pt", "*.ckpt", "*.msgpack", "*.onnx*"]
_VARIANTS = ["*.fp16.*", "*.fp16-*"]


def hub_files(
    repository: str, revision: str | None, patterns: Sequence[str], *, what: str, variants: bool = False
) -> Path:
    """The snapshot folder, named by its commit, with all files of ``repository`` that match ``patterns``.

    Files of the variant fp16 are left out without ``variants``.

    Files in the local cache are not downloaded again; without a connection only they are used. Raises :class:`UserError`
    if a file is in neither; ``what`` names the files in its message.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted: dict[str, Any] = {
        "repo_id": repository,
        "revision": revision,
        "allow_patterns": list(patterns),
        "ignore_patterns": _IGNORED if variants else _IGNORED + _VARIANTS,
    }
    try:
        if _is_listed(repository, revision):
            with suppress(LocalEntryNotFoundError):
                return Path(snapshot_download(**wanted, local_files_only=True))
        return Path(snapshot_download(**wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reference = f"{repository}@{revision}" if revision else repository
        raise UserError(f'base "{reference}": {_explained(repository, revision, what, error)}') from error


def _is_listed(repository: str, revision: str | None) -> bool:
    """Whether the local cache has the list of all files of a commit."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    if revision is None or not _COMMIT.fullmatch(revision):
        return False
    try:
        return bool(get_cached_repo_tree(repository, revision=revision))
    except CachedRepoTreeNotFoundError:
        return False


def _explained(repository: str, revision: str | None, what: str, error: Exception) -> str:
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    page = f"{constants.ENDPOINT}/{repository}"
    has_token = get_token() is not None
    answers = list(_causes(error))
    statuses = {getattr(getattr(each, "response", None), "status_code", None) for each in answers}
    if any(isinstance(each, GatedRepoError) for each in answers):
        if has_token:
            return f"gated, and the token's account has no access; accept the licence at {page} with that account"
        return f"gated, and no token is set; accept the licence at {page} and set HF_TOKEN"
    if any(isinstance(each, RevisionNotFoundError) for each in answers):
        return f'has no revision "{revision}"; {page} lists its branches, tags and commits'
    if any(isinstance(each, RepositoryNotFoundError) for each in answers):
        token = "check that HF_TOKEN's account may read it" if has_token else "set HF_TOKEN if it is private"
        return f"no such folder, and not found on the hub; check the name, and {token}"
    if 401 in statuses:
        return "the hub refuses HF_TOKEN; make a new token at https://huggingface.co/settings/tokens"
    if 403 in statuses:
        return f"HF_TOKEN may not read it; give the token read access to {repository}, gated repositories included"
    return (
        f"no such folder, and its {what} found neither on the hub nor in its local cache "
        f"({str(error).splitlines()[0]}); check the name and the network, or name a folder that holds the weights"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and its causes; the hub's answer may be the cause of an error of the cache."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
