"""Canary shares: as large as they say, sticky, and growing without moving anybody back."""

from math import sqrt

import pytest

from serving.catalogue.snapshot import Traffic
from serving.router.traffic import bucket, gets_challenger, served
from tests.support.snapshots import Registered, adapter

USERS = [f"user-{number}" for number in range(20_000)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_share_is_what_was_asked_for(share: float) -> None:
    got = sum(gets_challenger(user, "lying", share) for user in USERS)
    deviation = sqrt(len(USERS) * share * (1 - share))
    assert abs(got - len(USERS) * share) < 4 * deviation


def test_nobody_at_0_everybody_at_1() -> None:
    assert not any(gets_challenger(user, "lying", 0.0) for user in USERS)
    assert all(gets_challenger(user, "lying", 1.0) for user in USERS)


def test_a_growing_share_takes_nobody_back() -> None:
    before: set[str] = set()
    for share in (0.05, 0.1, 0.3, 0.31, 1.0):
        now = {user for user in USERS if gets_challenger(user, "lying", share)}
        assert before < now
        before = now


def test_adapters_deal_their_users_independently() -> None:
    one = {user for user in USERS if gets_challenger(user, "lying", 0.5)}
    other = {user for user in USERS if gets_challenger(user, "jumping", 0.5)}
    assert abs(len(one & other) / len(USERS) - 0.25) < 0.02


def test_a_user_sticks_on_any_machine() -> None:
    # A figure that another process must find too: no salted hash.
    assert bucket("ada", "lying") == pytest.approx(int.from_bytes(_digest("3:adalying")[:6], "big") / 2**48)
    assert bucket("ab", "c") != bucket("a", "bc")


def _digest(text: str) -> bytes:
    import hashlib

    return hashlib.sha256(text.encode()).digest()


def test_the_version_served_is_by_the_share_and_needs_a_challenger() -> None:
    lying = Registered("lying", "a person lying on the grass")
    everyone = Traffic(challenger_share=1.0)
    assert served(adapter(lying, champion=1, challenger=2, traffic=everyone), "ada")[1] == "challenger"
    assert served(adapter(lying, champion=1, challenger=2), "ada")[1] == "champion"
    identity, alias = served(adapter(lying, champion=1, traffic=everyone), "ada")
    assert (identity.version, alias) == ("1", "champion")
