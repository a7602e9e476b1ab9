"""The classifier accepts a prompt that means the same in other words, for subjects that no list of words was made for."""

import pytest

from serving.router.embedding import Embedder
from serving.router.prompt_classifier import RegisteredPrompts, closest
from serving.router.weights import classifier_weights
from serving.router.word_matching import Prompt

PLUMBER = (
    "a plumber tightening a pipe under a sink",
    (
        "a plumber fastening a pipe below a sink",
        "under a sink a plumber tightens a pipe with a wrench",
        "plumber at work on a pipe beneath the sink",
    ),
)
SHEPHERD = ("a shepherd shearing a sheep in a barn", ())
LYING = ("a person lying on the grass", ("a person lying on the lawn",))


def logit(embedder: Embedder, texts: tuple[str, tuple[str, ...]], asked: str, *guards: str) -> float:
    """How much `asked` means the same as the registered texts, above the threshold."""
    prompt, paraphrases = texts
    read = {text: Prompt.of(text, embedder) for text in (prompt, *paraphrases, *guards)}
    registered = RegisteredPrompts.of(prompt, paraphrases, guards, (), read)
    return closest(registered, Prompt.of(asked, embedder)).logit - classifier_weights().threshold


@pytest.mark.parametrize(
    ("texts", "asked"),
    [
        (PLUMBER, "photo of an old plumber tightening a rusty pipe under the sink, 35mm"),
        (SHEPHERD, "in an old barn, early in the morning, a bearded shepherd is shearing a white sheep"),
        (LYING, "a young woman lying down on the grass"),
        (LYING, "photo of someone stretched out on the grass"),
    ],
)
def test_other_words_of_the_same_meaning(
    embedder: Embedder, texts: tuple[str, tuple[str, ...]], asked: str
) -> None:
    assert logit(embedder, texts, asked) >= 0


@pytest.mark.parametrize(
    ("texts", "asked"),
    [
        (PLUMBER, "a plumber loosening a pipe under a sink"),
        (PLUMBER, "a plumber drinking coffee under a sink"),
        (PLUMBER, "a plumber tightening a pipe on a roof"),
        (PLUMBER, "two plumbers tightening a pipe under a sink"),
        (SHEPHERD, "a sheep shearing a shepherd in a barn"),
        (PLUMBER, "a plumber and a dog tightening a pipe under a sink"),
        (LYING, "a person standing on the grass"),
        (LYING, "a person not lying on the grass"),
        (LYING, "grass lying on a person"),
        (LYING, "a dog lying on the grass"),
        (LYING, "a person lying on the beach"),
        (LYING, "a person mowing the grass"),
        (LYING, "a person levitating on the grass"),
    ],
)
def test_near_prompts_of_another_meaning(
    embedder: Embedder, texts: tuple[str, tuple[str, ...]], asked: str
) -> None:
    assert logit(embedder, texts, asked) < 0


def test_a_guard_prompt_lowers_the_logit_of_what_is_near_it(embedder: Embedder) -> None:
    asked = "a plumber carefully tightening a pipe under a sink"
    assert logit(embedder, PLUMBER, asked, "a plumber carefully tightening a pipe under the sink") < logit(
        embedder, PLUMBER, asked
    )
