"""Adapters that a client asks for by name."""

import pytest

from serving.adapter_identity import AdapterIdentity
from serving.catalogue.snapshot import Traffic
from serving.router.requested import UnknownAdapter, requested
from tests.support.snapshots import Registered, adapter, snapshot

LYING = Registered("person-lying-grass", "a person lying on the grass")
SERVED = snapshot([adapter(LYING, champion=3, challenger=4, traffic=Traffic("shadow", challenger_share=0.0))])
OLD = AdapterIdentity("person-lying-grass", "1", "0" * 64)


def test_the_base() -> None:
    decision = requested(SERVED, "base", "ada")
    assert (decision.route, decision.adapter, decision.alias) == ("requested", None, None)


@pytest.mark.parametrize(
    ("wanted", "version", "alias"),
    [
        ("person-lying-grass", "3", "champion"),
        ("person-lying-grass@champion", "3", "champion"),
        ("person-lying-grass@challenger", "4", "challenger"),
        ("person-lying-grass@3", "3", None),
        ("person-lying-grass@4", "4", None),
        ("person-lying-grass@1", "1", None),
    ],
)
def test_a_name_an_alias_and_a_version(wanted: str, version: str, alias: str | None) -> None:
    decision = requested(SERVED, wanted, "ada", OLD if wanted.endswith("@1") else None)
    assert decision.route == "requested"
    assert decision.adapter is not None
    assert (decision.adapter.version, decision.alias) == (version, alias)


def test_a_name_follows_the_user_s_share() -> None:
    everyone = snapshot([adapter(LYING, champion=3, challenger=4, traffic=Traffic(challenger_share=1.0))])
    decision = requested(everyone, "person-lying-grass", "ada")
    assert decision.adapter is not None
    assert (decision.adapter.version, decision.alias) == ("4", "challenger")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("person-lying-gras", 'did you mean "person-lying-grass"'),
        ("xyz", "GET /v1/models lists what is served"),
        ("person-lying-grass@1", 'has no version "1"; its champion is 3'),
        ("person-lying-grass@9", 'has no version "9"; its champion is 3'),
        ("person-lying-grass@", 'has no version ""'),
        ("@3", 'no adapter "" is served'),
        ("", 'no adapter "" is served'),
    ],
)
def test_what_is_not_served_is_named_with_a_remedy(wanted: str, message: str) -> None:
    with pytest.raises(UnknownAdapter, match="adapter") as caught:
        requested(SERVED, wanted, "ada")
    assert message in str(caught.value)
