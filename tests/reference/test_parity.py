"""Objective, packed pass, optimiser, schedule and adapter files against diffusers' script, run from a checkout.

pytest tests/reference --reference=PATH
"""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from corrector.adapters import SD3_TARGETS, AdapterBank, load_adapter, save_adapter
from corrector.prompts import HyperParameters
from tests.reference.parity import CASES, Case, Comparison, Workbench
from tests.reference.script import ReferenceScript
from tests.support.small_sd3 import transformer_inputs

ROUNDING = 5e-6
"""Relative: the two sides sum in another order, in float32."""
LIMITS = {
    "text embeddings": 0.0,
    "sigmas": 0.0,
    "timesteps": 0.0,
    "learning rate": 1e-7,
    # AdamW divides by a gradient's own size, so a weight whose gradient is little but rounding moves by chance.
    "their change in training": 5e-3,
}
DEFAULT = CASES[0]


@pytest.fixture(scope="module")
def script(reference_checkout: Path) -> ReferenceScript:
    return ReferenceScript(reference_checkout)


@pytest.fixture(scope="module")
def workbench(script: ReferenceScript, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return Workbench(script, tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize("case", CASES, ids=[f"{case.base}: {case.name}" for case in CASES])
def test_every_number_on_the_way_is_the_scripts(workbench: Workbench, case: Case) -> None:
    compared = workbench.compare(case)
    for run in (compared.reference, compared.ours):
        assert len(run.steps) == case.settings.steps
    for name, difference in compared.differences().items():
        assert difference.relative <= LIMITS.get(name, ROUNDING), f"{name}: {difference}"


def test_the_compared_steps_clip_and_learn(workbench: Workbench) -> None:
    run = workbench.compare(DEFAULT).reference
    assert max(step.gradient_norm for step in run.steps) > DEFAULT.settings.max_grad_norm
    for path, (_, up) in run.steps[-1].weights.items():
        assert bool(up.any()) == (
            path != "transformer_blocks.2.attn.add_q_proj"
        )  # the last block's text is not read


def test_a_wrong_number_would_show(workbench: Workbench) -> None:
    other = Case(
        "another weighting", DEFAULT.base, DEFAULT.settings.model_copy(update={"precondition_outputs": False})
    )
    reference, ours = workbench.compare(DEFAULT).reference, workbench.compare(other).ours
    differences = Comparison(reference, ours).differences()
    assert differences["sigmas"].absolute == 0
    assert differences["loss"].relative > 0.1 and differences["gradients"].relative > 0.1


def test_defaults_are_the_scripts(script: ReferenceScript) -> None:
    defaults, ours = script.defaults(), HyperParameters()
    for theirs, own in {
        "weighting_scheme": ours.timestep_density,
        "logit_mean": ours.logit_mean,
        "logit_std": ours.logit_std,
        "mode_scale": ours.mode_scale,
        "precondition_outputs": ours.precondition_outputs,
        "learning_rate": ours.learning_rate,
        "lr_scheduler": ours.lr_schedule,
        "train_batch_size": ours.batch_size,
        "adam_beta1": ours.beta1,
        "adam_beta2": ours.beta2,
        "adam_epsilon": ours.epsilon,
        "adam_weight_decay": ours.weight_decay,
        "max_grad_norm": ours.max_grad_norm,
        "prior_loss_weight": ours.preservation_weight,
        "random_flip": ours.horizontal_flip,
    }.items():
        assert defaults[theirs] == own, theirs


def test_the_scripts_adapter_is_read_and_plain_diffusers_reads_ours(
    workbench: Workbench, tmp_path: Path
) -> None:
    compared, inputs = workbench.compare(DEFAULT), transformer_inputs(2)
    theirs = load_adapter(compared.reference.adapter)
    assert {path.split(".", 2)[2] for path in theirs.weights} == set(SD3_TARGETS)
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        workbench.pipeline(DEFAULT.base), local_files_only=True
    )
    with torch.no_grad():
        plain = pipeline.transformer(**inputs).sample
        bank = AdapterBank(pipeline.transformer, slots=1, rank=theirs.rank)
        bank.load(1, theirs)
        with bank.rows([1, 1]):
            expected = pipeline.transformer(**inputs).sample
        bank.remove()
        save_adapter(compared.ours.adapter, tmp_path)
        pipeline.load_lora_weights(tmp_path)
        found = pipeline.transformer(**inputs).sample
    assert (expected - plain).abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
