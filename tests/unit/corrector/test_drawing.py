"""The base draws an image once: not for the next version of a prompt, and not for each prompt that shares a guard."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from corrector.base import ContentCache, TextEmbeddings, resolve_base
from corrector.drawing import Candidate, draw, wanted_blocks
from corrector.evaluation import Assessment, Comparison, FeatureMemory
from corrector.evaluation.comparison import GuardSamples
from corrector.loaded_base import NEGATIVE_PROMPT, Base
from corrector.prompts import EvaluationSettings
from corrector.sampling import SampleRow
from tests.oracle.judge import SCENES
from tests.unit.corrector.evaluation import compared
from tests.unit.corrector.evaluation.compared import EXEMPLARS, GUARD_PROMPTS, PROMPT, THRESHOLDS, Colours

pytestmark = pytest.mark.xdist_group("scene features")

TEXTS = (NEGATIVE_PROMPT, *SCENES)
EMBEDDINGS = {
    text: TextEmbeddings(torch.full((1, 1, 1), float(number)), torch.zeros(1, 1))
    for number, text in enumerate(TEXTS)
}
WORDINGS = (PROMPT, "a dog lying on the grass")
ALL = EvaluationSettings(images=2, stop_early=False, num_inference_steps=2)
FEW = Comparison(
    ((PROMPT, 0), (PROMPT, 1)), tuple(GuardSamples(prompt=text, seeds=(2, 3)) for text in GUARD_PROMPTS[:2])
)


class Sampler:
    """Draws scenes in place of the base: slot 0 draws the failing prompt broken, other slots right; keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str, int]] = []

    def __call__(self, rows: Sequence[SampleRow]) -> Tensor:
        asked = [(row.slot, TEXTS[int(row.prompt.prompt)], row.seed) for row in rows]
        self.asked += asked
        return torch.stack([image(*each) for each in asked])

    def texts_of(self, slot: int) -> list[tuple[str, int]]:
        """Text and seed of the images that were asked of a slot."""
        return [(text, seed) for asked, text, seed in self.asked if asked == slot]


class Predictions:
    """First predictions: the corrected prompt's is 1 away from a guard prompt's, of which the adapter goes `shifts`."""

    def __init__(self, *shifts: float) -> None:
        self.shifts = dict(zip(GUARD_PROMPTS, shifts, strict=False))
        self.rows: list[SampleRow] = []

    def __call__(self, rows: Sequence[SampleRow]) -> Tensor:
        self.rows += rows
        texts = [TEXTS[int(row.prompt.prompt)] for row in rows]
        values = [
            1.0 if text == PROMPT else self.shifts[text] if row.slot else 0.0
            for row, text in zip(rows, texts, strict=True)
        ]
        return torch.tensor(values)[:, None, None, None]


def image(slot: int, text: str, seed: int) -> Tensor:
    """Slots draw different right images."""
    return compared.fixed(text, seed + 40 * (slot - 1)) if slot else compared.base(text, seed)


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """The embedded base with a cache of its own; none of its weights are read."""
    return Base(resolve_base("embedded"), device="cpu", cache=ContentCache(tmp_path))


def candidate(
    base: Base, slot: int = 1, extractor: Colours | None = None, comparison: Comparison = FEW
) -> Candidate:
    memory = FeatureMemory([extractor or Colours()], cache=base.cache)
    evaluation = ALL.model_copy(update={"images": len(comparison.own)})
    return Candidate(Assessment(comparison, EXEMPLARS, memory, evaluation, THRESHOLDS), EMBEDDINGS, slot)


def drawn(
    base: Base, *candidates: Candidate, evaluation: EvaluationSettings = ALL, side: int = 64
) -> Sampler:
    """What is asked of the sampler until the candidates' verdicts are known."""
    sampler = Sampler()
    draw(candidates, base, evaluation, side=side, sample=sampler, predict=Predictions())
    return sampler


def test_the_next_version_of_a_prompt_draws_its_own_images_only(base: Base) -> None:
    first, second = candidate(base, slot=1), candidate(base, slot=2)

    sampler, again = drawn(base, first), drawn(base, second)

    assert sampler.texts_of(0) == sampler.texts_of(1) == FEW.rows
    assert (again.texts_of(0), again.texts_of(2)) == ([], FEW.rows)
    assert (first.new, second.new) == (set(FEW.rows), set())
    assert torch.equal(first.assessment.before, second.assessment.before)
    assert torch.equal(second.assessment.before, torch.stack([image(0, *row) for row in FEW.rows]))
    assert torch.equal(second.assessment.after, torch.stack([image(2, *row) for row in FEW.rows]))


def test_prompts_of_a_pack_that_share_a_guard_share_the_bases_images_of_it(base: Base) -> None:
    other = Comparison((("a dog lying on the grass", 0), ("a dog lying on the grass", 1)), FEW.guards[1:])
    one, two = candidate(base, slot=1), candidate(base, slot=2, comparison=other)

    sampler = drawn(base, one, two)

    assert sampler.texts_of(0) == [*FEW.rows, *other.rows[:2]]
    assert (sampler.texts_of(1), sampler.texts_of(2)) == (FEW.rows, other.rows)
    assert sorted([*one.new, *two.new]) == sorted(sampler.texts_of(0))
    for each, comparison in ((one, FEW), (two, other)):
        for slot, arm in ((0, each.assessment.before), (each.slot, each.assessment.after)):
            assert torch.equal(arm, torch.stack([image(slot, *row) for row in comparison.rows]))


@pytest.mark.parametrize(
    "change", [{"num_inference_steps": 3}, {"guidance_scale": 2.0}, {"side": 32}], ids=str
)
def test_whatever_determines_the_bases_images_draws_them_again(base: Base, change: dict[str, Any]) -> None:
    side = change.pop("side", 64)
    drawn(base, candidate(base))

    sampler = drawn(base, candidate(base), evaluation=ALL.model_copy(update=change), side=side)

    assert sampler.texts_of(0) == FEW.rows


def test_the_bases_own_settings_count_where_none_are_given(base: Base) -> None:
    drawn(base, candidate(base), evaluation=ALL.model_copy(update={"num_inference_steps": None}))

    sampler = drawn(base, candidate(base), evaluation=ALL.model_copy(update={"num_inference_steps": 20}))

    assert sampler.texts_of(0) == [], "the embedded base samples with 20 steps"


def test_no_network_sees_the_bases_images_again(base: Base) -> None:
    first, second = Colours(), Colours()
    drawn(base, candidate(base, slot=1, extractor=first))
    drawn(base, candidate(base, slot=2, extractor=second))

    exemplars, own, restyled = 16, 2, 2
    assert first.seen == exemplars + 2 * own + restyled
    assert second.seen == exemplars + own + restyled


class Requests(ContentCache):
    """A cache that lists the keys that are read and written."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.read: list[str] = []
        self.written: list[str] = []

    def get(self, key: str) -> dict[str, Tensor] | None:
        self.read.append(key)
        return super().get(key)

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        self.written.append(key)
        super().put(key, tensors)


def test_a_look_costs_one_entry_of_images_and_one_of_features(tmp_path: Path) -> None:
    cache = Requests(tmp_path)
    base = Base(resolve_base("embedded"), device="cpu", cache=cache)
    look = Comparison(tuple((WORDINGS[seed % 2], seed) for seed in range(8)))

    for _ in range(2):
        drawn(base, candidate(base, comparison=look))

    assert (len(cache.written), len(cache.read)) == (2, 4)
    assert set(cache.written) == set(cache.read)


def test_a_block_holds_rows_of_the_prompt_itself_or_of_one_other_text(base: Base) -> None:
    own = tuple((WORDINGS[seed % 2], seed) for seed in range(12))
    guards = tuple(GuardSamples(prompt=text, seeds=tuple(range(12, 22))) for text in GUARD_PROMPTS[:2])
    every = Comparison(own, guards)

    blocks = wanted_blocks(candidate(base, comparison=every).assessment)

    assert [len(block) for block in blocks] == [8, 4, 8, 2, 8, 2]
    assert [row for block in blocks for row in block] == every.rows
    assert [{text for text, _ in block} for block in blocks[2:]] == [
        {text} for text in GUARD_PROMPTS[:2] for _ in range(2)
    ]


def test_a_damaged_entry_is_drawn_again(base: Base, tmp_path: Path) -> None:
    drawn(base, candidate(base))
    for path in tmp_path.rglob("*.tensors"):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = candidate(base)

    assert drawn(base, again).texts_of(0) == FEW.rows
    assert torch.equal(again.assessment.before, torch.stack([image(0, *row) for row in FEW.rows]))
    assert drawn(base, candidate(base)).texts_of(0) == []


def test_images_beyond_the_size_of_the_cache_are_drawn_again(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn(base, candidate(base))
    one = max(path.stat().st_size for path in tmp_path.rglob("*.tensors"))
    monkeypatch.setenv("CORRECTOR_IMAGE_CACHE_GIB", str(1.5 * one / 2**30))

    drawn(base, candidate(base), side=32)

    assert sum(path.stat().st_size for path in tmp_path.rglob("*.tensors")) < 2 * one
    monkeypatch.delenv("CORRECTOR_IMAGE_CACHE_GIB")
    assert drawn(base, candidate(base)).texts_of(0) == FEW.rows


def test_without_a_cache_everything_is_drawn_again() -> None:
    base = Base(resolve_base("embedded"), device="cpu")

    samplers = [drawn(base, candidate(base)) for _ in range(2)]

    assert [sampler.texts_of(0) for sampler in samplers] == [FEW.rows] * 2


def test_images_of_a_guard_prompt_are_drawn_where_its_predictions_moved(base: Base) -> None:
    whole = compared.compared()
    assessment = Assessment(whole, EXEMPLARS, compared.memory(), compared.SETTINGS, THRESHOLDS)
    sampler, predictions = Sampler(), Predictions(0.05, 0.3, -0.2)

    draw(
        [Candidate(assessment, EMBEDDINGS, 1)],
        base,
        compared.SETTINGS,
        side=64,
        sample=sampler,
        predict=predictions,
    )

    assert sampler.texts_of(1) == whole.part(16, guards=GUARD_PROMPTS[1:2]).rows
    assert [shift.largest for shift in assessment.guard_shifts] == pytest.approx([0.05, 0.3, -0.2])
    assert {(row.num_inference_steps, row.guided) for row in predictions.rows} == {(1, False)}
    assert len(predictions.rows) == 4 * (1 + 2 * 3), (
        "four noises: the prompt once, each guard prompt in both models"
    )
