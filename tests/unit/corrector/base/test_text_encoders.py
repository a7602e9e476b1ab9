"""Text embeddings are those of StableDiffusion3Pipeline, whatever the text, and are computed once."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from corrector.base import (
    BaseSpec,
    ContentCache,
    TextEmbeddings,
    TextEncoders,
    encode_prompts,
    load_text_encoders,
    resolve_base,
)

PROMPTS = [
    "a person lying on the grass",
    "",
    "A  DOG,\tsitting on the road!",
    "un café à 東京 🙂",
    "<|endoftext|> the red house <pad> </s>",
    "a person standing on the grass " * 20,
]


@pytest.fixture(scope="module")
def spec(small_sd3: Path) -> BaseSpec:
    return resolve_base(str(small_sd3))


@pytest.fixture(scope="module")
def encoders(spec: BaseSpec) -> TextEncoders:
    return load_text_encoders(spec)


@pytest.fixture(scope="module")
def reference(small_sd3: Path, spec: BaseSpec) -> TextEmbeddings:
    pipeline = StableDiffusion3Pipeline.from_pretrained(small_sd3, local_files_only=True)
    with torch.no_grad():
        prompt, _, pooled, _ = pipeline.encode_prompt(
            PROMPTS,
            None,
            None,
            do_classifier_free_guidance=False,
            max_sequence_length=spec.max_sequence_length,
        )
    return TextEmbeddings(prompt, pooled)


def test_embeddings_are_those_of_the_pipeline(encoders: TextEncoders, reference: TextEmbeddings) -> None:
    for batch_size in (1, 4, 16):
        found = encoders.encode(PROMPTS, batch_size=batch_size)
        torch.testing.assert_close(found.prompt, reference.prompt, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.pooled, reference.pooled, rtol=1e-5, atol=1e-5)
    assert (reference.prompt[0] - reference.prompt[1]).abs().max() > 0.1


def test_a_prompt_that_is_cut_is_named_in_the_log(
    encoders: TextEncoders, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="corrector.base.text_encoders"):
        encoders.encode(["a dog", "the red house " * 4])
    cut = [record.getMessage() for record in caplog.records]
    assert cut == [f"prompt {'the red house ' * 4!r} is cut for T5: 13 tokens, of which 12 are read"]


def test_text_that_is_not_unicode_is_encoded_with_replacements(encoders: TextEncoders) -> None:
    broken = encoders.encode(["a dog \ud800\x00"])
    assert torch.isfinite(broken.prompt).all()
    torch.testing.assert_close(broken.prompt, encoders.encode(["a dog ?\x00"]).prompt)


def test_prompts_are_encoded_once_and_alone(
    spec: BaseSpec, tmp_path: Path, reference: TextEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ContentCache(tmp_path)
    first = encode_prompts(spec, PROMPTS[:2], cache=cache)
    both = encode_prompts(spec, [*PROMPTS[:3], PROMPTS[0]], cache=cache)
    assert list(both) == PROMPTS[:3]
    for number, prompt in enumerate(PROMPTS[:3]):
        torch.testing.assert_close(
            both[prompt].prompt, reference.prompt[number : number + 1], rtol=1e-5, atol=1e-5
        )
        assert len(both[prompt]) == 1
    assert torch.equal(
        encode_prompts(spec, PROMPTS[:1], cache=None)[PROMPTS[0]].prompt, first[PROMPTS[0]].prompt
    )

    def refuse(*_: object, **__: object) -> TextEncoders:
        raise AssertionError("the encoders were loaded although everything is in the cache")

    monkeypatch.setattr("corrector.base.loading.load_text_encoders", refuse)
    again = encode_prompts(spec, PROMPTS[:3], cache=cache)
    assert all(torch.equal(again[prompt].prompt, both[prompt].prompt) for prompt in PROMPTS[:3])
    assert all(torch.equal(again[prompt].pooled, both[prompt].pooled) for prompt in PROMPTS[:3])


def test_a_base_without_t5_gives_zeros_as_the_pipeline_does(small_sd3: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_sd3, tmp_path / "base"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps(index | {"text_encoder_3": [None, None], "tokenizer_3": [None, None]})
    )
    spec = resolve_base(str(folder))
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        small_sd3, text_encoder_3=None, tokenizer_3=None, local_files_only=True
    )
    with torch.no_grad():
        expected, _, _, _ = pipeline.encode_prompt(
            "a dog",
            None,
            None,
            do_classifier_free_guidance=False,
            max_sequence_length=spec.max_sequence_length,
        )
    found = encode_prompts(spec, ["a dog"], cache=None)["a dog"].prompt
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_embeddings_are_cut_and_joined_like_lists() -> None:
    rows = TextEmbeddings(torch.arange(12.0).view(3, 2, 2), torch.arange(3.0).view(3, 1))
    assert len(rows[1]) == len(rows[-1]) == 1
    assert rows[1].pooled.item() == 1
    assert rows[-1].pooled.item() == 2
    assert rows[torch.tensor([2, 0])].pooled.flatten().tolist() == [2, 0]
    joined = TextEmbeddings.cat([rows[1:], rows[0]])
    assert joined.pooled.flatten().tolist() == [1, 2, 0]
    assert joined.to(dtype=torch.bfloat16).prompt.dtype == torch.bfloat16
