"""Embeddings are sentence-transformers' own, one by one or in a batch, from any thread."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from serving.router.embedding import DIMENSIONS, Embedder, packaged_model

PROMPTS = [
    "a person lying on the grass",
    "A cat.",
    "",
    "人が芝生に横たわっている",
    'a sign that says "open", ' + "very detailed, " * 100,
    *(f"a dog running on the beach, take {number}" for number in range(40)),
]


def test_vectors_are_those_of_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(packaged_model()), device="cpu").encode(PROMPTS)
    np.testing.assert_allclose(Embedder().embed(PROMPTS), reference, atol=1e-6)


def test_a_text_gets_the_same_vector_alone_and_in_a_batch() -> None:
    together = Embedder().embed(PROMPTS)
    alone = Embedder()
    np.testing.assert_allclose(together, np.concatenate([alone.embed([text]) for text in PROMPTS]), atol=1e-6)


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


def test_a_full_cache_forgets_the_oldest_and_still_answers() -> None:
    small, large = Embedder(cache_size=3), Embedder()
    for _ in range(2):
        np.testing.assert_allclose(small.embed(PROMPTS), large.embed(PROMPTS), atol=1e-6)
    assert len(small._cache) == 3


def test_threads_get_what_one_thread_gets() -> None:
    expected = Embedder().embed(PROMPTS)
    embedder = Embedder(cache_size=5)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: embedder.embed([text])[0], PROMPTS * 3))
    np.testing.assert_allclose(found, np.concatenate([expected] * 3), atol=1e-6)


def test_a_model_that_pools_otherwise_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(packaged_model(), folder, ignore=shutil.ignore_patterns("model.safetensors"))
    pooling = folder / "1_Pooling" / "config.json"
    changed = json.loads(pooling.read_text()) | {
        "pooling_mode_mean_tokens": False,
        "pooling_mode_cls_token": True,
    }
    pooling.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="pooling_mode_cls_token"):
        Embedder(folder)
