"""Sentence vectors are sentence-transformers' own, from any thread; words have vectors of their own in context."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.router.embedding import DIMENSIONS, Embedder, packaged_model

SHORT = [
    "a person lying on the grass",
    "A cat.",
    "",
    "人が芝生に横たわっている",
    "a dog running on the beach",
]
LONG = 'a sign that says "open", ' + "very detailed, " * 100
"""More than the 256 tokens that the model reads."""
FIRST_COMPONENTS = {
    SHORT[0]: [-0.028987, 0.060555, -0.019095, -0.005192, -0.030428, -0.003095],
    SHORT[3]: [0.012228, 0.171107, 0.024568, -0.012121, 0.013943, 0.089667],
    LONG: [0.02747, -0.032717, 0.063355, -0.015881, -0.064779, -0.07639],
}
"""By sentence-transformers, see the test of it below."""


def test_vectors_begin_as_those_of_sentence_transformers(embedder: Embedder) -> None:
    found = [embedder.contextual(text).sentence[:6] for text in FIRST_COMPONENTS]
    np.testing.assert_allclose(found, list(FIRST_COMPONENTS.values()), atol=2e-6)


@pytest.mark.slow
def test_vectors_are_those_of_sentence_transformers(embedder: Embedder) -> None:
    from sentence_transformers import SentenceTransformer

    texts = [*SHORT, LONG]
    reference = SentenceTransformer(str(packaged_model()), device="cpu").encode(texts)
    np.testing.assert_allclose([embedder.contextual(text).sentence for text in texts], reference, atol=1e-6)
    recorded = reference[[texts.index(text) for text in FIRST_COMPONENTS], :6]
    np.testing.assert_allclose(recorded, list(FIRST_COMPONENTS.values()), atol=1e-6)


def test_a_word_has_a_unit_vector_in_its_context(embedder: Embedder) -> None:
    one, other = (embedder.contextual(text) for text in ("a bat hanging in a cave", "a bat hitting a ball"))
    bat = one.word(2, 5)
    assert bat.shape == (DIMENSIONS,)
    np.testing.assert_allclose(np.linalg.norm(bat), 1.0, atol=1e-6)
    assert bat @ other.word(2, 5) < 0.95
    assert not one.word(1000, 1001).any()


def test_threads_get_what_one_thread_gets(embedder: Embedder) -> None:
    expected = [embedder.contextual(text).sentence for text in SHORT]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: embedder.contextual(text).sentence, SHORT * 5))
    np.testing.assert_allclose(found, expected * 5, atol=1e-6)
