"""Every benchmark runs at the smallest size; whether its figures are good is not for tests."""

import gc
import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from corrector.adapters import AdapterBank
from corrector.dreambooth import Engine
from tests.benchmarks import all as every
from tests.benchmarks import end_to_end, machine, memory, profiling, sampling, serving, training
from tests.benchmarks.subject import Subject, twin
from tests.benchmarks.timing import Timing, interleaved
from tests.benchmarks.training import Setting
from tests.support.small_sd3 import small_transformer, transformer_inputs

CPU = torch.device("cpu")
Command = Callable[[Sequence[str]], None]
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a command on the small model on one short round; checks the file that it writes and returns its results."""
    monkeypatch.setitem(machine._SIZES, "cpu", (256,))
    monkeypatch.setitem(machine._COPIED_BYTES, "cpu", 2**20)

    def of(command: Command, *arguments: str) -> list[dict[str, Any]]:
        out = tmp_path / "results" / "figures.json"
        command(
            ["--model", "small", "--device", "cpu", "--limit-seconds", "0", "--out", str(out), *arguments]
        )
        content = json.loads(out.read_text())
        assert content.keys() == {"benchmark", "machine", "arguments", "limits", "results"}
        assert content["benchmark"] == command.__module__.rpartition(".")[2]
        assert {"name", "cores", "threads", "load", "torch", "diffusers", "peft", "code"} <= content[
            "machine"
        ].keys()
        assert len(content["machine"]["code"]) == 12
        assert content["arguments"]["model"] == "small" and content["arguments"]["dtype"] == "float32"
        assert content["limits"]["matrix_rate"] > 1e8 and content["limits"]["bandwidth"] > 1e8
        results: list[dict[str, Any]] = content["results"]
        assert all(
            math.isfinite(value) for row in results for value in row.values() if isinstance(value, float)
        )
        return results

    gc.freeze()  # commands collect garbage often; what pytest has imported is none, and takes long to look through
    yield of
    gc.unfreeze()


def test_training_reports_every_setting(run: Run) -> None:
    results = run(
        training.main, "--slots", "1", "2", "--rank", "4", "--preservation", "none", "guard", "--sequential",
        "--rounds", "1", "--steps", "1",
    )  # fmt: skip
    assert [(row["slots"], row["preservation"]) for row in results] == [
        (1, "none"), (2, "none"), (1, "guard"), (2, "guard"),
    ]  # fmt: skip
    for row in results:
        assert 0 < row["best_seconds_per_step"] <= row["seconds_per_step"]
        assert row["images_per_second"] == pytest.approx(
            row["slots"] * row["batch"] / row["seconds_per_step"]
        )
        assert 0 < row["mfu"] < 1 and row["mfu_of_vendor_rate"] is None
        assert ("packed_over_sequential" in row) == (row["slots"] > 1)
        assert row.get("packed_over_sequential", 1) > 0
    assert results[1]["step_flops"] == 2 * results[0]["step_flops"] < results[3]["step_flops"]


@pytest.mark.parametrize(
    "options",
    [["--checkpointing"], pytest.param(["--compile", "eager"], marks=pytest.mark.slow)],
    ids=" ".join,
)
def test_training_runs_compiled_and_checkpointed(run: Run, options: list[str]) -> None:
    (row,) = run(training.main, "--slots", "2", "--rank", "4", "--rounds", "1", "--steps", "1", *options)
    assert row["images_per_second"] > 0


@pytest.mark.parametrize("preservation", ["none", "guard"])
def test_operations_of_a_step_are_nearly_what_pytorch_counts(preservation: str) -> None:
    subject = Subject("embedded", 2, CPU, torch.float32)
    setting = Setting(slots=2, batch=2, resolution=64, rank=4, preservation=preservation)
    settings = setting.hyperparameters()
    engine = Engine(subject.transformer(), FlowMatchEulerDiscreteScheduler(), slots=2, rank=4)
    for task in subject.fine_tunes(settings, setting.resolution):
        engine.admit(task)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        engine.step()
        engine.step()
    # At batch 2 every other step has a guard row.
    counted = 2 * sum(subject.step_flops(each, setting.resolution) for each in settings)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_a_profile_accounts_for_both_ways(run: Run) -> None:
    results = run(profiling.main, "--slots", "2", "--batch", "1", "--rank", "4", "--preservation", "none")
    assert [row["way"] for row in results] == ["packed", "alone"]
    packed, alone = results
    assert packed["products_ms"] > 0 and packed["attention_ms"] > 0
    # Two fine-tunes alone take two steps, with nearly twice the operations of the one that they share.
    assert 1.5 < alone["operations"] / packed["operations"] < 2.1


def test_serving_is_measured_beside_the_usual_design(run: Run) -> None:
    few = ("--images", "2", "--clients", "2", "--adapters", "2", "--registered", "3", "--rank", "2")
    results = run(serving.main, *few, "--rounds", "1", "--arrivals", "3", "--requests", "10")
    *designs, latency, held = results
    assert [row["work"] for row in designs] == [
        "usual design",
        "2 adapters",
        "base alone",
        "3 adapters, Zipf",
    ]
    usual, engine, base, _ = designs
    assert usual["over_usual"] == base["over_base"] == 1
    assert engine["over_usual"] == pytest.approx(engine["images_per_second"] / usual["images_per_second"])
    assert engine["adapter_loads"] == 2 and base["adapter_loads"] == 0
    assert 0 < latency["p50_seconds"] <= latency["p99_seconds"]
    assert held["requests"] == 10 and len(held["mib_after_each_tenth"]) == 10 and held["growth"] < 0.5


def test_memory_grows_with_the_slots_about_as_planned(run: Run) -> None:
    one, four = run(memory.main, "--slots", "1", "4", "--rank", "4")
    assert one["measured_bytes"] < four["measured_bytes"] < 4 * one["measured_bytes"]
    for row in (one, four):
        assert 0.5 < row["predicted_over_measured"] < 2
        assert row["predicted_bytes"] == sum(
            row[f"predicted_{part}_bytes"] for part in ("weights", "adapters", "activations")
        )


def test_peak_memory_is_what_lived_at_once() -> None:
    def work() -> None:
        for _ in range(3):
            first = torch.empty(1_000_000, dtype=torch.uint8)
            second = torch.empty(2_000_000, dtype=torch.uint8)
            del first, second

    assert memory.peak_of(work, CPU) == memory.Peak(allocated=3_000_000, reserved=None)


def test_sampling_reports_every_number_of_adapters(run: Run) -> None:
    results = run(
        sampling.main, "--rows", "2", "--adapters", "1", "2", "--rank", "4", "--rounds", "1", "--warmup", "1",
        "--steps", "1", "--loads", "2",
    )  # fmt: skip
    timed = [(row["engine"], row["adapters"]) for row in results[:5]]
    assert timed == [("base", 0), ("bank", 1), ("peft", 1), ("bank", 2), ("peft", 2)]
    assert results[0]["speed_of_base"] == 1
    assert all(row["speed_of_base"] > 0 and row["images_per_second"] > 0 for row in results[:5])
    assert [row["loaded_by"] for row in results[5:]] == ["packed", "plain", "hotswap"]
    assert all(0 < row["best_milliseconds"] <= row["milliseconds"] for row in results[5:])


def test_bank_and_peft_are_timed_on_the_same_work() -> None:
    weights = small_transformer("sd35")
    adapters = sampling.random_adapters(weights, 2, rank=4)
    banked = twin(weights)
    bank = AdapterBank(banked, slots=2, rank=4)
    for slot, adapter in enumerate(adapters, start=1):
        bank.load(slot, adapter)
    mixed, choose = sampling.with_peft(twin(weights), adapters)
    slots = sampling.spread(4, 2)
    assert slots == [1, 1, 2, 2]
    choose(slots)
    inputs = transformer_inputs(4)
    with torch.no_grad(), bank.rows(slots):
        own, peft = banked(**inputs).sample, mixed(**inputs).sample
        base = weights(**inputs).sample
    torch.testing.assert_close(own, peft, rtol=1e-4, atol=1e-4)
    assert (own - base).abs().amax(dim=(1, 2, 3)).min() > 0.01


def test_end_to_end_counts_every_stage(run: Run) -> None:
    (row,) = run(
        end_to_end.main, "--prompts", "3", "--steps", "2", "--slots", "2", "--rank", "4", "--alone", "1",
        "--pairs", "2", "--sampling-steps", "2",
    )  # fmt: skip
    stages = [row[f"{stage}_seconds"] for stage in ("load", "encode", "train", "save", "judge")]
    assert all(seconds > 0 for seconds in stages) and row["seconds"] == pytest.approx(sum(stages))
    assert row["prompts_per_hour"] == pytest.approx(3 * 3600 / row["seconds"])
    assert row["sequential_seconds"] > row["load_seconds"] + row["encode_seconds"]


def test_the_script_is_timed_beside(run: Run, reference_checkout: Path) -> None:
    reference = ["--reference", str(reference_checkout)]
    (row,) = run(training.main, "--slots", "2", "--rank", "4", "--rounds", "1", "--steps", "1", *reference)
    assert row["packed_over_reference"] > 0
    (row,) = run(
        end_to_end.main,
        "--prompts",
        "2",
        "--steps",
        "8",
        "--slots",
        "2",
        "--reference-steps",
        "6",
        "--pairs",
        "2",
        "--sampling-steps",
        "2",
        *reference,
    )
    assert row["reference_measured_steps"] == 6 and row["packed_over_reference"] > 0


@pytest.mark.slow
def test_all_goes_on_after_a_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = ["--out-folder", str(tmp_path), "--device", "cpu", "--quick"]
    status = every.main([*asked, "--reference", str(tmp_path / "nowhere"), "--only", "training", "memory"])
    assert status == 1 and "training: exit status 1" in capfd.readouterr().out
    (written,) = tmp_path.iterdir()
    assert written.name.endswith("-memory.json")


def test_all_names_what_it_had_no_time_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--out-folder", str(tmp_path), "--device", "cpu", "--quick"]
    assert every.main([*asked, "--minutes", "0", "--only", "training", "memory"]) == 1
    named = "not measured:\ntraining: no time left\nmemory: no time left\n"
    assert capsys.readouterr().out.endswith(named) and not any(tmp_path.iterdir())
    assert every.main([*asked, "--only", "speed"]) == 2


def test_rounds_alternate_and_the_warm_up_does_not_count() -> None:
    turns: list[str] = []
    timings = interleaved(
        {name: partial(turns.append, name) for name in "ab"}, device=CPU, rounds=2, warmup=1
    )
    assert turns == ["a", "b"] * 3
    assert [len(timing.rounds) for timing in timings.values()] == [2, 2]


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    slow, fast = Timing((4.0, 40.0, 6.0)), Timing((2.0, 20.0, 1.0))
    assert slow.over(fast) == 2.0
    assert (slow.best, slow.median) == (4.0, 6.0)
