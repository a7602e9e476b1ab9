"""Registered prompts first, then the classifier, otherwise the base; live, in shadow mode and by halves."""

import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from serving.catalogue.snapshot import Snapshot, Traffic
from serving.router.embedding import Contextual, Embedder
from serving.router.router import Router
from serving.settings import RouterSettings
from tests.benchmarks.router import drafted as drafted_prompts
from tests.support.snapshots import Registered, adapter, snapshot
from tests.support.waiting import wait_until

LYING = Registered(
    "lying",
    "a person lying on the grass",
    ["a person stretched out on the lawn"],
    ["a person sitting on the grass"],
)
JUMPING = Registered("jumping", "a robot jumping on the snow")
OTHER_WORDS = "photo of someone lying on the lawn"


@pytest.fixture
def router(embedder: Embedder) -> Router:
    return Router(snapshot([adapter(LYING), adapter(JUMPING)]), embedder)


@pytest.mark.parametrize(
    "prompt",
    [
        "a person lying on the grass",
        "A Person, lying on   the GRASS!",
        "ａ ｐｅｒｓｏｎ lying on the grass",
        "“a person lying on the grass”",
    ],
)
def test_the_prompt_itself_whatever_its_case_spacing_punctuation_and_width(
    router: Router, prompt: str
) -> None:
    decision = router.route(prompt, user="ada")
    assert decision.route == "exact"
    assert decision.adapter is not None
    assert (str(decision.adapter), decision.alias) == ("lying@1", "champion")
    assert decision.score is None


def test_a_registered_paraphrase(router: Router) -> None:
    decision = router.route("A person stretched out on the lawn.", user="ada")
    assert decision.route == "paraphrase"
    assert decision.adapter is not None
    assert decision.adapter.name == "lying"


def test_another_wording_by_the_classifier(router: Router) -> None:
    decision = router.route(OTHER_WORDS, user="ada")
    assert decision.route == "classifier"
    assert decision.adapter is not None
    assert decision.adapter.name == "lying"
    assert decision.score is not None
    assert decision.threshold is not None
    assert 0.0 < decision.threshold <= decision.score <= 1.0
    assert "a person lying on the grass" in decision.reason


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("A person sitting on the grass", "a guard prompt or hard negative of lying"),
        ("grass lying on a person", "nearest is lying"),
        ("a castle in the fog", "nearest is"),
        ("a person lying on the grass " * 50, "more than 1000 characters"),
    ],
)
def test_the_base_and_why(router: Router, prompt: str, reason: str) -> None:
    decision = router.route(prompt, user="ada")
    assert (decision.route, decision.adapter, decision.alias) == ("base", None, None)
    assert reason in decision.reason


def test_a_negated_prompt_goes_to_the_base_however_near_it_is(router: Router) -> None:
    decision = router.route("a person not lying on the grass", user="ada")
    assert (decision.route, decision.adapter) == ("base", None)
    assert "nearest is lying" in decision.reason


@pytest.mark.parametrize(
    "prompt", ["", " ", "!?", "🙂", "\x00", "\ud800", "人が芝生に横たわっている", "a" * 100_000]
)
def test_any_text_gets_a_decision(router: Router, prompt: str) -> None:
    assert router.route(prompt, user="ada").adapter is None


def test_nothing_registered(embedder: Embedder) -> None:
    assert Router(Snapshot(), embedder).route("a cat", user="ada").route == "base"


def test_two_adapters_for_one_prompt_the_newer_counts(embedder: Embedder) -> None:
    again = Registered("again", LYING.prompt)
    served = snapshot([adapter(again, champion=5), adapter(LYING, champion=2)])
    decision = Router(served, embedder).route(LYING.prompt, user="ada")
    assert decision.adapter is not None
    assert decision.adapter.name == "again"


def test_two_adapters_that_are_meant_alike_are_both_not_meant(embedder: Embedder) -> None:
    twin = Registered("twin", LYING.prompt, LYING.paraphrases, LYING.guard_prompts)
    decision = Router(snapshot([adapter(LYING), adapter(twin)]), embedder).route(OTHER_WORDS, user="ada")
    assert decision.route == "base"
    assert "lying and twin are both near" in decision.reason


@pytest.mark.parametrize("prompt", [LYING.prompt, LYING.paraphrases[0], OTHER_WORDS])
def test_shadow_mode_says_what_would_be_and_serves_the_base(embedder: Embedder, prompt: str) -> None:
    served = snapshot([adapter(LYING, traffic=Traffic("shadow")), adapter(JUMPING)])
    decision = Router(served, embedder).route(prompt, user="ada")
    assert (decision.route, decision.adapter) == ("base", None)
    assert [str(identity) for identity in decision.shadow] == ["lying@1"]
    assert "shadow" in decision.reason


def test_an_adapter_in_shadow_mode_takes_nothing_from_a_live_one(embedder: Embedder) -> None:
    twin = Registered("twin", LYING.prompt, LYING.paraphrases, LYING.guard_prompts)
    served = snapshot([adapter(LYING), adapter(twin, traffic=Traffic("shadow"))])
    for prompt, route in ((LYING.prompt, "exact"), (OTHER_WORDS, "classifier")):
        decision = Router(served, embedder).route(prompt, user="ada")
        assert decision.route == route
        assert decision.adapter is not None
        assert decision.adapter.name == "lying"
        assert [identity.name for identity in decision.shadow] == ["twin"]


def test_the_challenger_gets_its_share_of_users(embedder: Embedder) -> None:
    served = snapshot([adapter(LYING, champion=1, challenger=2, traffic=Traffic(challenger_share=0.3))])
    router = Router(served, embedder)
    got = [router.route(LYING.prompt, user=f"user-{number}").alias for number in range(2000)]
    assert abs(got.count("challenger") / 2000 - 0.3) < 0.04
    assert got == [router.route(LYING.prompt, user=f"user-{number}").alias for number in range(2000)]


def test_an_update_switches_versions_and_texts(embedder: Embedder, router: Router) -> None:
    changed = Registered("lying", LYING.prompt)
    router.update(snapshot([adapter(changed, champion=7), adapter(JUMPING)], number=2))
    decision = router.route(LYING.prompt, user="ada")
    assert decision.adapter is not None
    assert decision.adapter.version == "7"
    assert router.route(LYING.paraphrases[0], user="ada").route == "classifier"
    router.update(snapshot([adapter(JUMPING)], number=3))
    assert router.route(LYING.prompt, user="ada").adapter is None


def test_more_caution_corrects_fewer_prompts(embedder: Embedder) -> None:
    served = snapshot([adapter(LYING)])
    careful = Router(served, embedder, RouterSettings(caution=5))
    assert Router(served, embedder).route(OTHER_WORDS, user="ada").route == "classifier"
    assert careful.route(OTHER_WORDS, user="ada").route == "base"
    assert careful.route(LYING.prompt, user="ada").route == "exact"


@pytest.fixture
def reading(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The reading of registered prompts waits until this is set."""
    contextual, opened = embedder.contextual, threading.Event()

    def held(text: str) -> Contextual:
        opened.wait(60)
        return contextual(text)

    monkeypatch.setattr(embedder, "contextual", held)
    yield opened
    opened.set()


def test_registered_prompts_are_served_before_they_are_read(
    embedder: Embedder, reading: threading.Event
) -> None:
    router = Router(Snapshot(), embedder)
    updating = threading.Thread(target=router.update, args=(snapshot([adapter(LYING), adapter(JUMPING)]),))
    updating.start()
    wait_until(lambda: router.route(LYING.prompt, user="ada").route == "exact")
    reading.set()
    updating.join()
    assert router.route(OTHER_WORDS, user="ada").route == "classifier"


def test_what_is_taken_down_while_prompts_are_read_is_not_routed_to(
    embedder: Embedder, reading: threading.Event
) -> None:
    router = Router(Snapshot(), embedder)
    both = snapshot([adapter(LYING), adapter(JUMPING)], number=1)
    updates = [
        threading.Thread(target=router.update, args=(following,))
        for following in (both, snapshot([adapter(JUMPING)], number=2))
    ]
    updates[0].start()
    wait_until(lambda: router.route(LYING.prompt, user="ada").adapter is not None)
    updates[1].start()
    wait_until(lambda: router.snapshot.number == 2)  # the update does not wait for the reading to end
    reading.set()
    for update in updates:
        update.join()
    assert router.route(LYING.prompt, user="ada").adapter is None
    assert router.route(OTHER_WORDS, user="ada").adapter is None


def test_requests_during_updates_see_one_snapshot_or_the_other(embedder: Embedder) -> None:
    snapshots = [
        snapshot([adapter(LYING, champion=number), adapter(JUMPING)], number=number) for number in (1, 2)
    ]
    router = Router(snapshots[0], embedder)
    seen: Counter[str] = Counter()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            for prompt in (LYING.prompt, OTHER_WORDS):
                seen[str(router.route(prompt, user="ada").adapter)] += 1

    def seen_more_often(served: str, *, than: int) -> bool:
        return seen[served] > than

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(1, 21):
            router.update(snapshots[turn % 2])
            served = f"lying@{turn % 2 + 1}"
            wait_until(partial(seen_more_often, served, than=seen[served]))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(seen) == {"lying@1", "lying@2"}


@pytest.fixture(scope="module")
def drafted(embedder: Embedder) -> Router:
    """Adapters with paraphrases and hard negatives that a language model drafted."""
    registered, _ = drafted_prompts("unseen_prompts.yaml")
    wanted = ("squirrel-feeder", "candle-books-skull")
    return Router(snapshot(adapter(entry) for entry in registered if entry.name in wanted), embedder)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        (
            "bushy-tailed squirrel clinging head down to a seed feeder in the garden, telephoto",
            "squirrel-feeder",
        ),
        ("a squirrel sitting upright on a fence below a bird feeder", None),
        ("a lit candle on a pile of antique books, a skull next to it, chiaroscuro", "candle-books-skull"),
        ("a castle in the fog", None),
    ],
)
def test_examples_of_both_kinds_tell_what_an_adapter_is_for(
    drafted: Router, prompt: str, name: str | None
) -> None:
    decision = drafted.route(prompt, user="ada")
    assert (decision.adapter.name if decision.adapter else None) == name, decision.reason


def test_a_hard_negative_itself_goes_to_the_base_and_one_near_it_is_named(drafted: Router) -> None:
    (squirrel,) = (each for each in drafted.snapshot.adapters.values() if each.name == "squirrel-feeder")
    negative = squirrel.hard_negatives[0]
    assert "hard negative of squirrel-feeder" in drafted.route(negative.upper(), user="ada").reason
    near = drafted.route(f"{negative}, watercolor", user="ada")
    assert near.adapter is None
    assert f'it is nearer to "{negative}"' in near.reason
