"""Adapters that a client asks for by name."""

from difflib import get_close_matches

from corrector.errors import UserError
from serving.adapter_identity import AdapterIdentity
from serving.catalogue.snapshot import ServedAdapter, Snapshot
from serving.router.decision import Decision
from serving.router.traffic import Alias, served

BASE = "base"


class UnknownAdapter(UserError):
    """No such adapter, or no such version of it, is served."""


def requested(
    snapshot: Snapshot, wanted: str, user: str, unlisted: AdapterIdentity | None = None
) -> Decision:
    """The decision for an adapter that the client names.

    Args:
        wanted: "base", `NAME` (champion or challenger, by the user's share), or `NAME@VERSION`; VERSION may be an alias.
        user: For anonymous users, the request's id.
        unlisted: The adapter of `wanted`, where it is registered but not in the snapshot.

    Raises:
        UnknownAdapter: There is no such adapter.
    """
    if wanted == BASE:
        return Decision("requested", None, "the base was asked for")
    name, at, version = wanted.partition("@")
    adapter = snapshot.adapters.get(name)
    if not at:
        if adapter is None:
            raise UnknownAdapter(_unknown_name(snapshot, name))
        identity, alias = served(adapter, user)
        return Decision("requested", identity, f"{name} was asked for", alias)
    reason = f"{wanted} was asked for"
    if adapter is not None and (listed := _listed(adapter, version)) is not None:
        return Decision("requested", listed[0], reason, listed[1])
    if unlisted is not None:
        return Decision("requested", unlisted, reason)
    if adapter is None:
        raise UnknownAdapter(_unknown_name(snapshot, name))
    raise UnknownAdapter(
        f'adapter {name} has no version "{version}"; its champion is {adapter.champion.identity.version}'
    )


def _listed(adapter: ServedAdapter, version: str) -> tuple[AdapterIdentity, Alias | None] | None:
    """The served version with this alias or number."""
    champion = adapter.champion.identity
    challenger = adapter.challenger.identity if adapter.challenger is not None else None
    if version in ("champion", champion.version):
        return champion, "champion" if version == "champion" else None
    if challenger is not None and version in ("challenger", challenger.version):
        return challenger, "challenger" if version == "challenger" else None
    return None


def _unknown_name(snapshot: Snapshot, name: str) -> str:
    near = get_close_matches(name, [*snapshot.adapters, BASE], n=1)
    hint = f'did you mean "{near[0]}"' if near else "GET /v1/models lists what is served"
    return f'no adapter "{name}" is served; {hint}'
