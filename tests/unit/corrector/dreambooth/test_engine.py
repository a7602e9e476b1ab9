"""The engine: packed fine-tunes against the same alone, and against PEFT with a plain training loop."""

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import peft
import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.training_utils import compute_loss_weighting_for_sd3

from corrector.adapters import SD3_TARGETS, Adapter
from corrector.base import LatentPosterior
from corrector.dreambooth import Engine, FineTune
from corrector.dreambooth.objective import NoiseTable
from corrector.dreambooth.step_rows import RowSampler
from corrector.errors import UserError
from tests.support.small_sd3 import small_transformer, transformer_inputs
from tests.support.small_tasks import diverging, engine, fine_tune, posterior, scheduler, texts, train

MIXED = (
    fine_tune("guard", 1, rank=4, batch_size=2),
    fine_tune(
        "prior",
        2,
        rank=8,
        alpha=4,
        learning_rate=1e-3,
        batch_size=3,
        preservation="prior",
        lr_schedule="cosine",
    ),
    fine_tune(
        "plain", 3, rank=2, learning_rate=1e-2, batch_size=1, preservation="none", timestep_density="mode"
    ),
    fine_tune("small images", 4, size=4, batch_size=2, preservation_batch_size=3, timestep_density="cosmap"),
    fine_tune(
        "mirrored",
        5,
        rank=8,
        horizontal_flip=True,
        precondition_outputs=False,
        warmup_steps=5,
        max_grad_norm=0.1,
    ),
)


def shortened(task: FineTune, steps: int) -> FineTune:
    return replace(task, hyperparameters=task.hyperparameters.model_copy(update={"steps": steps}))


def test_a_packed_fine_tune_equals_the_same_alone() -> None:
    tasks = [shortened(task, 15) for task in MIXED]
    packed = train(engine(slots=len(tasks)), *tasks)
    alone = {name: losses for task in tasks for name, losses in train(engine(slots=1), task).items()}
    for task in tasks:
        assert len(packed[task.name]) == 2 * task.hyperparameters.steps
        assert packed[task.name] == pytest.approx(alone[task.name], rel=1e-4, abs=1e-4), task.name


def test_the_adapter_that_comes_out_does_not_depend_on_the_pack() -> None:
    def adapter(slots: int, **options: Any) -> Adapter:
        pack = engine(slots=slots, **options)
        for task in reversed(MIXED[:slots]):
            pack.admit(shortened(task, 5))
        while MIXED[0].name not in pack.finished:
            pack.step()
        return pack.release(MIXED[0].name)

    alone, packed, in_turns, lazily = (
        adapter(1),
        adapter(5),
        adapter(3, tokens_per_forward=3 * 44),
        adapter(5, report_every=4),
    )
    for other in (packed, in_turns, lazily):
        assert (other.rank, other.alpha) == (4, 4.0)
        for path, (down, up) in alone.weights.items():
            torch.testing.assert_close(other.weights[path], (down, up), rtol=1e-4, atol=5e-5)
    assert max(float(up.abs().max()) for _, up in alone.weights.values()) > 1e-3


@pytest.mark.parametrize(("precondition", "guard_rows"), [(True, 3), (False, 3), (True, None)])
def test_equals_peft_with_a_plain_loop(precondition: bool, guard_rows: int | None) -> None:
    """Without `guard_rows` three of four steps have one guard row, with more weight, so that the mean weight is the same."""
    task = fine_tune(
        "reference", 6, rank=4, alpha=8, batch_size=3, steps=6, precondition_outputs=precondition, weight_decay=0.1,
        timestep_density="cosmap", preservation_weight=0.7, preservation_batch_size=guard_rows,
    )  # fmt: skip
    pack = engine(slots=2)
    slot = pack.admit(task)
    initial = pack.bank.export(slot)

    base, tuned = small_transformer(), small_transformer()
    tuned.add_adapter(
        peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights="gaussian", target_modules=list(SD3_TARGETS))
    )
    modules = dict(tuned.named_modules())
    for path, (down, up) in initial.weights.items():
        modules[path].lora_A.default.weight.data.copy_(down)
        modules[path].lora_B.default.weight.data.copy_(up)
    trained = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=5e-3, weight_decay=0.1)
    draws = RowSampler(task, NoiseTable.of(scheduler()))
    for _ in range(6):
        rows = draws.next()
        text = task.texts[rows.texts]
        inputs = {
            "hidden_states": rows.noisy, "timestep": rows.timesteps,
            "encoder_hidden_states": text.prompt, "pooled_projections": text.pooled,
        }  # fmt: skip
        with torch.no_grad():
            base_prediction = base(**inputs).sample
        sigmas = (rows.timesteps / 1000).view(-1, 1, 1, 1)
        weighting = compute_loss_weighting_for_sd3("cosmap", sigmas=sigmas)
        target = torch.cat([rows.target[:3], base_prediction[3:]])
        prediction = tuned(**inputs).sample
        if precondition:
            prediction, target = (rows.noisy - sigmas * velocity for velocity in (prediction, target))
        errors = weighting * (prediction - target) ** 2
        loss, preserved = errors[:3].mean(), errors[3:].flatten(1).mean(1)
        (loss + 0.7 * preserved.sum() / (guard_rows or 3 / 4)).backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()

        report = pack.step()["reference"]
        assert report.loss == pytest.approx(loss.item(), rel=1e-4)
        expected = pytest.approx(preserved.mean().item(), rel=1e-3, abs=1e-7) if len(preserved) else None
        assert report.preservation_loss == expected
        assert report.grad_norm == pytest.approx(norm.item(), rel=1e-4)
    for path, (down, up) in pack.release("reference").weights.items():
        torch.testing.assert_close(down, modules[path].lora_A.default.weight.data, rtol=1e-3, atol=2e-5)
        torch.testing.assert_close(up, modules[path].lora_B.default.weight.data, rtol=1e-3, atol=2e-5)


def test_each_resolution_takes_as_many_rows_at_once_as_its_tokens_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At 44 tokens a row of 8 x 8 latents and 32 of 4 x 4, 132 tokens are three rows of one and four of the other."""
    taken: dict[int, list[int]] = {8: [], 4: []}
    forward = SD3Transformer2DModel.forward

    def counted(self: SD3Transformer2DModel, **inputs: Any) -> Any:
        taken[inputs["hidden_states"].shape[-1]].append(len(inputs["hidden_states"]))
        return forward(self, **inputs)

    monkeypatch.setattr(SD3Transformer2DModel, "forward", counted)
    pack = engine(slots=2, tokens_per_forward=132)
    pack.admit(fine_tune("large", 1, batch_size=7, preservation="none"))
    pack.admit(fine_tune("small", 2, size=4, batch_size=7, preservation="none"))
    pack.step()
    assert taken == {8: [3, 3, 1], 4: [4, 3]}


def test_a_refilled_slot_starts_afresh() -> None:
    first, second = fine_tune("first", 1, steps=6), fine_tune("second", 2, steps=6)
    shared = train(engine(slots=1), first, second)
    assert shared["second"] == train(engine(slots=1), second)["second"]


def test_training_lowers_the_loss_and_leaves_the_base_alone() -> None:
    transformer = small_transformer("sd35")
    before = {name: parameter.clone() for name, parameter in transformer.named_parameters()}
    inputs = transformer_inputs(2)
    expected = transformer(**inputs).sample
    pack = Engine(transformer, scheduler(), slots=2, rank=8)
    losses = train(
        pack, fine_tune("one", 1, steps=40, preservation="none"), fine_tune("two", 2, steps=40, rank=8)
    )
    for values in losses.values():
        assert sum(values[-20::2]) < 0.7 * sum(values[0:20:2])
    assert torch.equal(transformer(**inputs).sample, expected)
    assert all(torch.equal(before[name], parameter) for name, parameter in transformer.named_parameters())


def guard_drift(task: FineTune) -> float:
    """How far the trained adapter moves the predictions at the guard prompts, on latents as in training."""
    transformer = small_transformer()
    pack = Engine(transformer, scheduler(), slots=1, rank=4)
    slot = pack.admit(task)
    while task.name not in pack.finished:
        pack.step()
    assert task.guards is not None
    inputs = transformer_inputs(3, seed=9) | {
        "hidden_states": task.posterior.mean[:3] + 0.5 * posterior(3, 77).mean,
        "encoder_hidden_states": task.guards.prompt,
        "pooled_projections": task.guards.pooled,
    }
    with torch.no_grad():
        base = transformer(**inputs).sample
        with pack.bank.rows([slot] * 3):
            return float((transformer(**inputs).sample - base).square().mean())


def test_guard_preservation_holds_guard_prompts_to_the_base() -> None:
    free = guard_drift(fine_tune("free", 1, steps=30, preservation="none"))
    guarded = guard_drift(fine_tune("guarded", 1, steps=30, preservation_weight=3.0))
    assert guarded < 0.5 * free


def test_guard_loss_begins_at_nothing_and_exemplars_are_the_same_rows_with_and_without() -> None:
    pack = engine(slots=3)
    for kind in ("guard", "prior", "none"):
        pack.admit(fine_tune(kind, 1, preservation=kind))
    reports = pack.step()
    assert reports["guard"].preservation_loss == pytest.approx(
        0, abs=1e-10
    )  # B is zero: the adapter is the base
    assert reports["prior"].preservation_loss > 0.1  # type: ignore[operator]
    assert reports["none"].preservation_loss is None
    assert reports["guard"].loss == pytest.approx(reports["none"].loss, rel=1e-5)


@pytest.mark.parametrize("report_every", [1, 7])
def test_a_fine_tune_that_diverges_fails_alone(report_every: int) -> None:
    healthy = fine_tune("healthy", 1, steps=12)
    wild = fine_tune("wild", 2, steps=12)
    pack = engine(slots=2, report_every=report_every)
    losses = train(pack, diverging(wild), healthy, fine_tune("next", 3, steps=12))
    assert losses.keys() == {"healthy", "next"}
    assert losses["healthy"] == pytest.approx(train(engine(slots=1), healthy)["healthy"], rel=1e-4, abs=1e-6)
    (failure,) = pack.failures
    assert (failure.name, failure.step) == ("wild", 1)
    assert re.match(
        r"the loss became (inf|nan) at step 1 of 12 \(learning rate 0.005\); lower", failure.reason
    )


def test_a_bf16_base_keeps_float32_adapters() -> None:
    task = fine_tune("task", 1, steps=10, learning_rate=1e-4, rank=8)
    pack = engine(slots=1, dtype=torch.bfloat16)
    slot = pack.admit(task)
    before = pack.bank.export(slot)
    reports = [pack.step()["task"] for _ in range(10)]
    assert all(parameter.dtype == torch.float32 for parameter in pack.bank.parameters())
    after = pack.release("task")
    for path, (down, _) in after.weights.items():
        if "add_q_proj" in path or "to_add_out" in path:
            continue  # the last layers' text stream reaches no pixel
        assert (
            down != before.weights[path][0]
        ).float().mean() > 0.99  # in bf16 most steps of 1e-4 round to nothing
    exact = train(engine(slots=1), task)["task"][::2]
    assert [report.loss for report in reports] == pytest.approx(exact, rel=0.03)


def test_losses_are_fetched_every_so_often_and_none_is_lost() -> None:
    task = fine_tune("task", 1, steps=8)
    eager, lazy = engine(slots=1), engine(slots=1, report_every=3)
    eager.admit(task)
    lazy.admit(task)
    given = [lazy.step() for _ in range(8)]
    for _ in range(8):
        eager.step()
    assert [bool(reports) for reports in given] == [False, False, True, False, False, True, False, True]
    assert given[5]["task"] == eager.history("task")[5]
    assert lazy.history("task") == eager.history("task")
    assert [report.step for report in lazy.history("task")] == list(range(1, 9))


def test_stop_ends_early_and_frees_the_slot_on_release() -> None:
    pack = engine(slots=2)
    pack.admit(fine_tune("short", 1, steps=3))
    pack.admit(fine_tune("long", 2, steps=100))
    assert pack.free_slots == []
    with pytest.raises(ValueError, match="no free slot for third"):
        pack.admit(fine_tune("third", 3))
    with pytest.raises(ValueError, match="long is at step 0 of 100"):
        pack.release("long")
    for _ in range(3):
        pack.step()
    assert (pack.finished, pack.active) == (["short"], ["long"])
    pack.step()
    assert len(pack.history("short")) == 3 and len(pack.history("long")) == 4
    pack.stop("long")
    assert pack.step() == {}
    assert pack.release("long").metadata["steps"] == "4"
    assert pack.free_slots == [2] and pack.bank.occupied() == [1]
    with pytest.raises(KeyError, match="no fine-tune long"):
        pack.history("long")


@pytest.mark.parametrize("task", MIXED, ids=lambda task: task.name)
def test_draws_made_ahead_are_those_that_would_have_been_made(task: FineTune) -> None:
    table = NoiseTable.of(scheduler())
    plain, ahead, resumed = (RowSampler(task, table) for _ in range(3))
    for step in range(8):
        expected = plain.next()
        state = ahead.state()
        if step % 2:
            ahead.prefetch()
            ahead.prefetch()
        resumed.restore(ahead.state(), step)
        assert torch.equal(state["generator"], ahead.state()["generator"])
        for rows in (ahead.next(), resumed.next()):
            assert torch.equal(rows.noisy, expected.noisy) and torch.equal(rows.texts, expected.texts)
            assert torch.equal(rows.target, expected.target) and torch.equal(
                rows.timesteps, expected.timesteps
            )


def test_draws_deal_every_exemplar_before_any_again() -> None:
    task = fine_tune("task", 1, exemplars=7, batch_size=3, preservation_batch_size=3)
    counted = replace(
        task,
        posterior=LatentPosterior(
            torch.arange(7.0).view(7, 1, 1, 1).expand(7, 4, 8, 8), torch.zeros(7, 4, 8, 8)
        ),
    )
    draws = RowSampler(counted, NoiseTable.of(scheduler()))
    seen: list[float] = []
    for _ in range(7):
        rows = draws.next()
        clean = rows.noisy - (rows.timesteps / 1000).view(-1, 1, 1, 1) * rows.target
        seen += clean[: rows.exemplars].mean((1, 2, 3)).round().tolist()
        torch.testing.assert_close(
            rows.noisy[3:], rows.noisy[:3]
        )  # guards look at the exemplars' own noisy latents
        assert set(rows.texts[3:].tolist()) == {1, 2, 3} and rows.texts[:3].tolist() == [0, 0, 0]
    assert all(sorted(seen[start:stop]) == list(range(7)) for start, stop in pairwise(range(0, 22, 7)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"hyperparameters": fine_tune("x", steps=5).hyperparameters.model_copy(update={"rank": 9})},
            "rank 9 is above 8",
        ),
        ({"guards": None}, "guard preservation needs guard prompts"),
        (
            {"hyperparameters": fine_tune("x", preservation="prior").hyperparameters, "class_posterior": None},
            "needs a class prompt",
        ),
        ({"hyperparameters": fine_tune("x", horizontal_flip=True).hyperparameters, "mirrored_posterior": None}, "mirrored"),
        ({"posterior": posterior(3, 0, size=18)}, r"latents of shape \[4, 18, 18\] do not fit"),
        ({"posterior": posterior(3, 0, size=5)}, "multiples of 2 up to 16"),
        ({"posterior": LatentPosterior(torch.full((1, 4, 8, 8), float("nan")), torch.ones(1, 4, 8, 8))}, "not finite"),
        ({"class_posterior": posterior(3, 0, size=4)}, "class images: latents of shape .* differ from the exemplars'"),
        ({"mirrored_posterior": posterior(3, 0)}, "one for every exemplar"),
        ({"prompt": texts(2, 0)}, "prompt: 2 rows of text embeddings"),
        ({"guards": replace(texts(2, 0), pooled=torch.zeros(2, 5))}, r"guard prompts: text embeddings of widths \(32, 5\)"),
        ({"guards": replace(texts(2, 0), prompt=torch.zeros(2, 5, 32))}, "guard prompts: 5 tokens where the prompt has 28"),
    ],
)  # fmt: skip
def test_a_task_that_does_not_fit_is_refused_before_it_joins(change: dict[str, object], message: str) -> None:
    pack = engine(slots=2)
    pack.admit(fine_tune("other", 1))
    with pytest.raises(UserError, match=f"^misfit: .*{message}"):
        pack.admit(replace(fine_tune("misfit"), **change))  # type: ignore[arg-type]
    assert pack.free_slots == [2] and pack.bank.occupied() == [1]
    with pytest.raises(ValueError, match="other is in this engine already"):
        pack.admit(fine_tune("other", 1))
