"""The alignment network tells prompts apart by a word, and padding changes nothing."""

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.router.alignment_network import WEIGHTS, AlignmentNetwork, alignment_network, alignments
from serving.router.embedding import Embedder
from tests.benchmarks.router_network import Written, add_changed, fit_network

SHEARING = "a shepherd shearing a sheep in a barn"
LONG = "in the old barn behind the farm, early in the morning, a bearded shepherd is shearing a white sheep"


def tokens(embedder: Embedder, text: str) -> NDArray[np.float16]:
    return embedder.contextual(text).tokens


def test_a_batch_of_texts_has_the_logits_of_each_alone(embedder: Embedder) -> None:
    texts = [tokens(embedder, text) for text in (SHEARING, LONG, "a sheep")]
    asked = tokens(embedder, "a sheep being shorn by a shepherd")
    alone = [alignments(alignment_network(), [each], asked)[0] for each in texts]
    assert alignments(alignment_network(), texts, asked) == pytest.approx(alone, abs=1e-4)


def test_another_word_is_less_alike_than_other_details(embedder: Embedder) -> None:
    registered = [tokens(embedder, SHEARING)]
    asked = [LONG, "a shepherd shearing a goat in a barn", "a shepherd shearing a sheep on a hill"]
    same, *others = (alignments(alignment_network(), registered, tokens(embedder, text))[0] for text in asked)
    assert same > max(others) + 1.0


def test_without_tokens_nothing_is_known(embedder: Embedder) -> None:
    assert alignments(alignment_network(), [tokens(embedder, SHEARING)], tokens(embedder, "")) == [0.0]
    assert alignments(alignment_network(), [], tokens(embedder, SHEARING)) == []


def test_the_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 350_000
    assert sum(parameter.numel() for parameter in AlignmentNetwork().parameters()) < 150_000


def test_fitting_separates_what_it_is_fitted_on(embedder: Embedder) -> None:
    written = Written(
        "shepherd",
        (SHEARING, "a sheep being shorn by a shepherd in a barn"),
        ("a shepherd feeding a sheep in a barn",),
        (
            LONG,
            "shepherd shears a sheep, barn interior, 35mm",
            "oil painting of a shepherd shearing a sheep in a barn",
        ),
        (
            "a shepherd hugging a sheep in a barn",
            "a sheep sleeping in a barn",
            "a shepherd shearing a sheep on a hill",
        ),
    )
    add_changed([written])
    known = {text.lower() for text in (*written.registered, *written.same)}
    assert known.isdisjoint(text.lower() for text in written.changed_different)
    vectors = {text: tokens(embedder, text) for text in written.texts}
    network = fit_network([written], vectors, epochs=40)
    registered = [vectors[SHEARING]]
    same, different = (
        [alignments(network, registered, vectors[text])[0] for text in texts]
        for texts in (written.same, written.different)
    )
    assert min(same) > max(different)
