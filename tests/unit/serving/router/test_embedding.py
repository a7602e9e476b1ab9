"""Embeddings are sentence-transformers' own, one by one or in a batch, from any thread."""

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
BATCHES = [*SHORT, *(f"a dog running on the beach, take {number}" for number in range(29))]
"""More than one batch takes."""
FIRST_COMPONENTS = {
    SHORT[0]: [-0.028987, 0.060555, -0.019095, -0.005192, -0.030428, -0.003095],
    SHORT[3]: [0.012228, 0.171107, 0.024568, -0.012121, 0.013943, 0.089667],
    LONG: [0.02747, -0.032717, 0.063355, -0.015881, -0.064779, -0.07639],
}
"""By sentence-transformers, see the test of it below."""


def test_vectors_begin_as_those_of_sentence_transformers(embedder: Embedder) -> None:
    found = embedder.embed(list(FIRST_COMPONENTS))
    np.testing.assert_allclose(found[:, :6], list(FIRST_COMPONENTS.values()), atol=2e-6)


@pytest.mark.slow
def test_vectors_are_those_of_sentence_transformers(embedder: Embedder) -> None:
    from sentence_transformers import SentenceTransformer

    texts = [*SHORT, LONG]
    reference = SentenceTransformer(str(packaged_model()), device="cpu").encode(texts)
    np.testing.assert_allclose(embedder.embed(texts), reference, atol=1e-6)
    recorded = reference[[texts.index(text) for text in FIRST_COMPONENTS], :6]
    np.testing.assert_allclose(recorded, list(FIRST_COMPONENTS.values()), atol=1e-6)


def test_a_text_gets_the_same_vector_alone_and_in_a_batch(embedder: Embedder) -> None:
    together, alone = embedder.embed(BATCHES), Embedder()
    np.testing.assert_allclose(together, np.concatenate([alone.embed([text]) for text in BATCHES]), atol=1e-6)


def test_rows_are_unit_vectors_in_the_order_of_the_texts(embedder: Embedder) -> None:
    found = embedder.embed(["a cat", "a dog", "a cat"])
    assert found.shape == (3, DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    assert (found[0] == found[2]).all()
    assert not np.allclose(found[0], found[1], atol=0.1)
    assert embedder.embed([]).shape == (0, DIMENSIONS)


def test_the_caller_s_changes_do_not_reach_the_cache() -> None:
    embedder = Embedder()
    first = embedder.embed(["a cat"])
    kept = first.copy()
    first[:] = 0.0
    assert (embedder.embed(["a cat"]) == kept).all()


def test_a_full_cache_forgets_the_oldest_and_still_answers(embedder: Embedder) -> None:
    small = Embedder(cache_size=3)
    for _ in range(2):
        np.testing.assert_allclose(small.embed(SHORT), embedder.embed(SHORT), atol=1e-6)
    assert len(small._cache) == 3


def test_threads_get_what_one_thread_gets(embedder: Embedder) -> None:
    expected = embedder.embed(BATCHES)
    shared = Embedder(cache_size=5)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: shared.embed([text])[0], BATCHES * 2))
    np.testing.assert_allclose(found, np.concatenate([expected] * 2), atol=1e-6)
