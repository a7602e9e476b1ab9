"""A prompt is corrected from Python: what a lane gives, to the digit, and what plain diffusers loads."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

import corrector
from corrector.base import ContentCache, resolve_base
from corrector.dreambooth import Engine
from corrector.exemplars import load_exemplars
from corrector.exemplars.fit import to_image
from corrector.prompt_inputs import ExemplarImages, fine_tune, texts_of
from corrector.record.correction_record import CorrectionRecord
from corrector.record.writing import code_version
from jobs.correction.scoring import ScoringSettings, score_prompt
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import PromptFolder
from jobs.lanes.queue import PromptQueue
from tests.support import lanes
from tests.support.lanes import LocalClient, curve, run_lane
from tests.support.paths import PROJECT

SIDE = 16
EVALUATION = lanes.EVALUATION.model_copy(update={"hard_negatives": 1, "hard_negative_images": 2})


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> corrector.FailingPrompt:
    folder = tmp_path_factory.mktemp("exemplars")
    for number in range(6):
        image = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(number))
        to_image(image).save(folder / f"{number}.png")
    return corrector.FailingPrompt(
        prompt="a person lying on the grass",
        exemplars=str(folder),
        guard_prompts=("a person sitting on the grass",),
        hyperparameters=corrector.HyperParameters(
            rank=2, steps=4, batch_size=2, learning_rate=1e-2, horizontal_flip=True
        ),
    )


def correct(prompt: corrector.FailingPrompt, base: corrector.Base, **options: Any) -> corrector.Correction:
    return corrector.correct(prompt, base, evaluation=EVALUATION, progress=False, **options)


@pytest.fixture(scope="module")
def correction(prompt: corrector.FailingPrompt, small_sd3: Path) -> corrector.Correction:
    return correct(prompt, corrector.Base(resolve_base(str(small_sd3))))


def test_losses_images_and_scorecard_are_those_of_a_lane_to_the_digit(
    correction: corrector.Correction, prompt: corrector.FailingPrompt, small_sd3: Path, tmp_path: Path
) -> None:
    spec = resolve_base(str(small_sd3))
    exemplars = load_exemplars(Path(prompt.exemplars), resolution=SIDE)
    key = ExemplarImages.of(exemplars).store(ContentCache(tmp_path / "cache"))
    place = PromptFolder(tmp_path / "prompt")
    task = PromptTask(correction.record.work_id, prompt, key, place, exemplars.sources)
    run_lane(tmp_path, spec, LocalClient(PromptQueue([task])), slots=1, evaluation=EVALUATION)
    assert [point.loss for point in correction.record.curve] == curve(task)
    score_prompt(task, ScoringSettings(spec, EVALUATION, corrector.GateThresholds(), code_version()))
    folder = place.record.path
    of_lane = CorrectionRecord.load(folder)
    same: dict[str, Any] = {"created": of_lane.created, "seconds": of_lane.seconds}
    assert correction.record.model_copy(update=same) == of_lane
    written = CorrectionRecord.load(correction.save_record(tmp_path / "record").parent)
    assert written == correction.record
    files = [path.relative_to(folder) for path in sorted(folder.glob("images/**/*.png"))]
    assert len(files) > 20
    assert all((tmp_path / "record" / file).read_bytes() == (folder / file).read_bytes() for file in files)


class Nobody:
    """A judge to whom no image is right."""

    name = "nobody"

    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> Sequence[bool]:
        return [False] * len(images)


def test_a_judge_is_asked_and_drawing_stops_when_the_verdict_is_known(
    prompt: corrector.FailingPrompt, small_sd3: Path
) -> None:
    early = EVALUATION.model_copy(update={"stop_early": True, "look_images": 2})
    base = corrector.Base(resolve_base(str(small_sd3)))

    found = corrector.correct(prompt, base, evaluation=early, judge=Nobody(), progress=False)

    card = found.record.scorecard
    assert card is not None and card.verdicts is not None
    assert (card.verdicts.judge, card.verdicts.right_corrected.value) == ("nobody", 0)
    assert card.looks[-1].decision == "refused"
    assert len(found.before) == len(found.after) == len(found.comparison) == card.looks[-1].n
    assert "right images" in [check.name for check in card.verdict.reasons if not check.passed]


def test_exemplars_are_checked_unless_they_are_accepted(
    correction: corrector.Correction, prompt: corrector.FailingPrompt, small_sd3: Path, tmp_path: Path
) -> None:
    assert any(note.startswith("the exemplars are doubtful: number: 6 images") for note in correction.notes)
    gone = [each.sha256 for each in correction.record.exemplars[:3]]
    decided = {digest: {"decision": "drop", "by": "Ana", "why": "three legs"} for digest in gone}
    decisions = tmp_path / "decisions.json"
    decisions.write_text(json.dumps({"decisions": decided}))
    base = corrector.Base(resolve_base(str(small_sd3)))
    refusal = (
        r"the exemplars are not effective\n  number: 3 images .*\nlook at them with .*accept_exemplars=True"
    )
    with pytest.raises(corrector.UserError, match=refusal):
        correct(prompt, base, decisions=decisions)
    accepted = correct(prompt, base, decisions=decisions, accept_exemplars=True)
    assert [each.sha256 for each in accepted.record.exemplars if not each.is_used] == gone
    assert not any("doubtful" in note for note in accepted.notes)


def test_plain_diffusers_loads_what_save_writes(
    correction: corrector.Correction, small_sd3: Path, tmp_path: Path
) -> None:
    correction.save(tmp_path / "lying")
    pipeline = StableDiffusion3Pipeline.from_pretrained(small_sd3)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(tmp_path / "lying"))
    expected = pipeline(
        correction.entry.prompt,
        height=SIDE,
        width=SIDE,
        num_inference_steps=4,
        guidance_scale=3.0,
        max_sequence_length=12,
        generator=torch.Generator().manual_seed(5),
        output_type="pt",
    ).images
    base = corrector.Base(resolve_base(str(small_sd3)))
    found = base.sample(correction.entry.prompt, adapter=correction.adapter, seeds=[5])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(base.sample(correction.entry.prompt, seeds=[5]), found, atol=1e-3)
    loaded = corrector.load_adapter(tmp_path / "lying")
    assert torch.equal(base.sample(correction.entry.prompt, adapter=loaded, seeds=[5]), found)


def test_an_offloaded_base_is_trained_and_sampled_like_any_other(
    correction: corrector.Correction, prompt: corrector.FailingPrompt, small_sd3: Path
) -> None:
    base = corrector.Base(resolve_base(str(small_sd3)), device="cpu", offload=True)
    engine = Engine(base.transformer, base.scheduler, slots=1, rank=2, checkpointing=True, device=base.device)
    engine.admit(fine_tune(prompt, correction.exemplars, base.encode(texts_of(prompt, EVALUATION)), base))
    while engine.active:
        engine.step()
    assert all(parameter.is_meta for parameter in base.transformer.parameters())
    losses = [report.loss for report in engine.history(prompt.name)]
    assert losses == [point.loss for point in correction.record.curve]
    adapter = engine.release(prompt.name)
    engine.bank.remove()
    plain = corrector.Base(resolve_base(str(small_sd3)), device="cpu")
    images = [each.sample(prompt.prompt, adapter=adapter, seeds=range(2)) for each in (base, plain)]
    assert torch.equal(*images)


def test_every_text_of_a_prompt_is_encoded_once_in_the_tokens_that_the_base_reads(
    prompt: corrector.FailingPrompt, small_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path))
    base = corrector.load_base(str(small_sd3))
    texts = texts_of(prompt, EVALUATION)
    embeddings = base.encode([*texts, *texts])
    assert list(embeddings) == texts
    assert {each.prompt.shape[:2] for each in embeddings.values()} == {(1, base.spec.text_tokens)}
    assert len(list((tmp_path / "tensors").rglob("*.tensors"))) == len(texts)


def test_a_sheet_shows_before_above_after(correction: corrector.Correction) -> None:
    sheet = correction.show(pairs=3)
    assert sheet.width > 3 * 128 and sheet.height > 2 * 128
    assert Image.open(io.BytesIO(correction._repr_png_())).size == correction.show().size


def test_divergence_is_told_with_its_remedy_and_leaves_the_base_usable(
    prompt: corrector.FailingPrompt, small_sd3: Path
) -> None:
    base = corrector.Base(resolve_base(str(small_sd3)))
    too_high = prompt.hyperparameters.model_copy(update={"learning_rate": 1e38, "steps": 9})
    with pytest.raises(
        corrector.UserError, match=r"became (nan|inf) at step \d of 9 .* lower the learning rate"
    ):
        correct(prompt.model_copy(update={"hyperparameters": too_high}), base)
    assert base.sample("a dog", seeds=range(2), num_inference_steps=1).shape == (2, 3, SIDE, SIDE)


def test_prior_preservation_draws_its_class_images(
    correction: corrector.Correction, prompt: corrector.FailingPrompt, small_sd3: Path
) -> None:
    base = corrector.Base(resolve_base(str(small_sd3)))
    prior = {"preservation": "prior", "class_images": 3, "seed": 7}
    entry = prompt.model_copy(
        update={"class_prompt": "a dog", "hyperparameters": prompt.hyperparameters.model_copy(update=prior)}
    )
    task = fine_tune(entry, correction.exemplars, base.encode(texts_of(entry, EVALUATION)), base)
    assert task.class_posterior is not None and task.class_posterior.std.count_nonzero() == 0
    torch.testing.assert_close(
        base.decode(task.class_posterior.mean), base.sample("a dog", seeds=range(7, 10)), atol=1e-5, rtol=0
    )


def test_importing_the_library_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "pydantic", "diffusers", "transformers", "peft", "PIL", "rich", "boto3")
    code = f"import sys, corrector; dir(corrector); print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_everything_in_the_front_door_is_there() -> None:
    assert all(getattr(corrector, name) is not None for name in corrector.__all__)
    assert not hasattr(corrector, "corect")


def test_the_guides_example_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (block,) = re.findall(
        r"^```python\n(.*?)^```", (PROJECT / "corrector/README.md").read_text(), re.M | re.S
    )
    for written, small in {
        '"steps": 300': '"steps": 2',
        "EvaluationSettings(images=32)": "EvaluationSettings(images=2, guard_images=1, hard_negatives=0, "
        "num_inference_steps=1, permutations=19, bootstrap=20)",
        "seeds=range(4)": "seeds=range(4), num_inference_steps=1",
        'save("lying")': f"save({str(tmp_path / 'lying')!r})",
    }.items():
        assert block.count(written) == 1
        block = block.replace(written, small)
    monkeypatch.chdir(PROJECT)
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "cache"))
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["images"].shape == (4, 3, 64, 64)
    assert (tmp_path / "lying" / "pytorch_lora_weights.safetensors").is_file()
