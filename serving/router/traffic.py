"""Canary: selects the users of an adapter that get its challenger."""

import hashlib
from typing import Literal

from serving.adapter_identity import AdapterIdentity
from serving.catalogue.snapshot import ServedAdapter

Alias = Literal["champion", "challenger"]


def bucket(user: str, adapter: str) -> float:
    """A hash of user and adapter as a number in [0, 1), the same on every machine."""
    # The length keeps ("ab", "c") and ("a", "bc") apart.
    key = f"{len(user)}:{user}{adapter}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(key).digest()[:6], "big") / 2**48


def gets_challenger(user: str, adapter: str, share: float) -> bool:
    """Whether a user is in the share, 0 to 1, of the adapter's users that get its challenger.

    While the share does not change, a user keeps the same version. A growing share only moves users from the champion to the
    challenger, and a shrinking share only moves them back. The choice is independent for each adapter.
    """
    return bucket(user, adapter) < share


def served(adapter: ServedAdapter, user: str) -> tuple[AdapterIdentity, Alias]:
    """The version of the adapter that a user gets, and the alias that points at it."""
    if adapter.challenger is not None and gets_challenger(
        user, adapter.name, adapter.traffic.challenger_share
    ):
        return adapter.challenger.identity, "challenger"
    return adapter.champion.identity, "champion"
