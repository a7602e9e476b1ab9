"""Paraphrases mean what the prompt means; hard negatives do not."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrector.prompts.variations import hard_negatives, paraphrases
from tests.world.scenes import canonical_prompt, scenes

LYING = "a person lying on the grass"


def test_paraphrases_use_synonyms_order_tense_articles_and_openings() -> None:
    found = set(paraphrases(LYING, limit=1500))
    assert {
        "a person reclining on the grass",
        "a woman lying on the grass",
        "a person lying in a meadow",
        "on the grass lies a person",
        "a person is lying on the grass",
        "person lying on grass",
        "the person lying on the grass",
        "a picture of a person lying on the grass",
    } <= found


def test_hard_negatives_differ_in_each_way_in_turn() -> None:
    found = hard_negatives(LYING, limit=90)
    assert {negative.difference for negative in found[:9]} == {
        "action",
        "place",
        "noun",
        "negation",
        "swapped",
        "extra",
        "number",
        "missing",
        "relation",
    }


def test_the_hard_negatives_of_the_paper_s_prompt() -> None:
    found = {negative.text for negative in hard_negatives(LYING, limit=1200)}
    assert {
        "a person standing on the grass",
        "a dog lying on the grass",
        "a person lying on the street",
        "a person not lying on the grass",
        "nobody is lying on the grass",
        "a grass lying on the person",
        "two people lying on the grass",
    } <= found


def test_no_scene_of_the_embedded_world_is_a_paraphrase_of_another() -> None:
    prompts = [canonical_prompt(scene) for scene in scenes()]
    for prompt in prompts:
        found = {*paraphrases(prompt, limit=100)}
        assert found.isdisjoint(prompts)


def test_no_hard_negative_is_a_paraphrase() -> None:
    for prompt in (LYING, "a cat and a dog sitting on a bench", "a hand holding a cup of coffee"):
        same = {*paraphrases(prompt, limit=1000)}
        assert same.isdisjoint(negative.text for negative in hard_negatives(prompt, limit=250))


def test_the_order_of_what_is_side_by_side_means_nothing() -> None:
    swapped = [
        n.text for n in hard_negatives("a cat and a dog sitting on a bench", 400) if n.difference == "swapped"
    ]
    assert swapped
    assert not any(text.startswith("a dog and a cat sitting") for text in swapped)


def test_the_same_arguments_give_the_same_texts() -> None:
    assert paraphrases(LYING, 50, "training", seed=3) == paraphrases(LYING, 50, "training", seed=3)
    assert hard_negatives(LYING, 50, "training", seed=3) == hard_negatives(LYING, 50, "training", seed=3)
    assert paraphrases(LYING, 50, "training", seed=3) != paraphrases(LYING, 50, "training", seed=4)


def test_training_and_calibration_share_no_synonym() -> None:
    words = {
        part: {word for text in paraphrases(LYING, 300, part) for word in text.replace(",", "").split()}
        for part in ("training", "calibration")
    }
    synonyms = {
        "lawn",
        "meadow",
        "turf",
        "reclining",
        "sprawled",
        "laying",
        "lounging",
        "man",
        "woman",
        "guy",
        "lady",
    }
    seen = {part: found & synonyms for part, found in words.items()}
    assert seen["training"]
    assert seen["calibration"]
    assert seen["training"].isdisjoint(seen["calibration"])


def test_unknown_words_stay() -> None:
    for text in paraphrases("a gargoyle brooding on a ledge", 50):
        assert {"gargoyle", "brooding", "ledge"} <= set(text.replace(",", "").split())
    differences = {negative.difference for negative in hard_negatives("a gargoyle brooding on a ledge", 50)}
    assert {"action", "noun", "negation", "swapped", "missing"} <= differences


@pytest.mark.parametrize("prompt", [LYING, "an elephant standing on a rock", "a child eating an apple"])
def test_articles_agree(prompt: str) -> None:
    texts = [*paraphrases(prompt, 300), *(negative.text for negative in hard_negatives(prompt, 300))]
    for text in texts:
        words = text.lower().replace(",", " ,").split()
        for article, noun in pairwise(words):
            if article in ("a", "an") and noun[0].isalpha():
                assert (article == "an") == (noun[0] in "aeiou"), text


def test_a_limit_is_kept_and_texts_are_distinct() -> None:
    found = paraphrases(LYING, limit=25)
    assert len(found) == len(set(found)) == 25
    assert len({negative.text for negative in hard_negatives(LYING, limit=25)}) == 25


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=60))
def test_any_text_has_variations_or_none(prompt: str) -> None:
    assert len(paraphrases(prompt, 5)) <= 5
    assert len(hard_negatives(prompt, 5)) <= 5
