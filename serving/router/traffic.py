"""Which of an adapter's users get its challenger."""

import hashlib
from typing import Literal

from serving.catalogue.snapshot import ServedAdapter
from serving.identity import AdapterIdentity

Alias = Literal["champion", "challenger"]


def bucket(user: str, adapter: str) -> float:
    """Where a user stands among an adapter's users, 0 to 1 (1 excluded): the same at any time and on any machine."""
    # A length keeps ("ab", "c") and ("a", "bc") apart whatever the names hold.
    key = f"{len(user)}:{user}{adapter}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(key).digest()[:6], "big") / 2**48


def gets_challenger(user: str, adapter: str, share: float) -> bool:
    """Whether a user is in the share, 0 to 1, of the adapter's users that get its challenger.

    A user stays where they are as long as the share does. A share that grows only takes users from the champion, one that
    shrinks only gives users back to it. Each adapter deals its users anew, so nobody is the first to try everything.

    Args:
        user: Of anonymous users, whatever their requests are known by.
    """
    return bucket(user, adapter) < share


def served(adapter: ServedAdapter, user: str) -> tuple[AdapterIdentity, Alias]:
    """The version of the adapter that a user gets, and the alias that points at it."""
    if adapter.challenger is not None and gets_challenger(
        user, adapter.name, adapter.traffic.challenger_share
    ):
        return adapter.challenger.identity, "challenger"
    return adapter.champion.identity, "champion"
