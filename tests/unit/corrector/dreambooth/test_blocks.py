"""Blocks recomputed, compiled and streamed from host memory: the same training, by other ways."""

import copy
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import torch._dynamo
from torch._dynamo.utils import counters
from torch._inductor import config as inductor_config
from torch._inductor.utils import fresh_cache

from corrector.dreambooth import Engine, FineTune
from tests.support.small_sd3 import Variant, small_transformer
from tests.support.small_tasks import RANK, diverging, engine, fine_tune, scheduler, train

TASKS = (
    fine_tune("guard", 1, rank=4, batch_size=2, steps=3),
    fine_tune("prior", 2, rank=8, steps=3, preservation="prior"),
    fine_tune("small images", 3, rank=2, size=4, steps=3, preservation="none"),
)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Counts the graphs compiled so far, in a fresh compiler."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(
        logging.getLogger("torch.__trace"), "level", logging.CRITICAL
    )  # pytest would record it all
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


def gradients(pack: Engine, *tasks: FineTune) -> list[torch.Tensor]:
    for task in tasks:
        pack.admit(task)
    for _ in range(2):  # B is zero in the first step, and A's gradient with it
        pack.step()
    return [pack._optimiser.gradients.clone(), pack.bank.storage.clone()]


@pytest.mark.parametrize("variant", ["sd3", "sd35"])
def test_recomputed_blocks_give_the_same_losses_and_gradients_to_the_bit(variant: Variant) -> None:
    for plain, recomputed in zip(
        gradients(engine(3, variant=variant), *TASKS),
        gradients(engine(3, variant=variant, checkpointing=True), *TASKS),
        strict=True,
    ):
        assert plain.abs().max() > 0
        assert torch.equal(plain, recomputed)
    assert train(engine(3, checkpointing=True), *TASKS) == train(engine(3), *TASKS)


def test_recomputing_keeps_a_blocks_inputs_and_no_more() -> None:
    def kept(checkpointing: bool) -> int:
        pack = engine(1, checkpointing=checkpointing)
        held: list[torch.Tensor] = []
        pack.admit(TASKS[0])
        packing = torch.autograd.graph.saved_tensors_hooks(
            held.append, lambda _: pytest.fail("no backward here")
        )
        with packing, pytest.raises(pytest.fail.Exception):
            pack.step()
        return sum(tensor.numel() for tensor in held)

    assert kept(True) < kept(False) / 3


def test_an_engine_without_checkpointing_undoes_what_another_left_on_the_transformer() -> None:
    transformer = small_transformer()
    for checkpointing in (True, False):
        Engine(transformer, scheduler(), slots=1, rank=4, checkpointing=checkpointing).bank.remove()
        assert transformer.is_gradient_checkpointing is checkpointing


def test_a_base_streamed_from_host_memory_trains_as_one_that_is_not() -> None:
    streamed = accelerate.cpu_offload(
        copy.deepcopy(small_transformer()), execution_device=torch.device("cpu")
    )
    pack = Engine(streamed, scheduler(), slots=3, rank=RANK, checkpointing=True, device="cpu")
    assert train(pack, *TASKS) == train(engine(3), *TASKS)
    assert all(parameter.is_meta for parameter in streamed.parameters())  # nothing stayed behind
    with pytest.raises(ValueError, match="needs checkpointing=True"):
        Engine(streamed, scheduler(), slots=3, rank=RANK, device="cpu")
    with pytest.warns(UserWarning, match="runs uncompiled: its weights are streamed"):
        uncompiled = Engine(
            accelerate.cpu_offload(small_transformer(), execution_device=torch.device("cpu")),
            scheduler(), slots=1, rank=4, checkpointing=True, compile="eager", device="cpu",
        )  # fmt: skip
    assert not uncompiled.compiled


@pytest.mark.parametrize(
    ("preservation", "rows", "most"), [("none", 2, 4), pytest.param("guard", 1, 13, marks=pytest.mark.slow)]
)
def test_the_number_of_graphs_does_not_grow_with_what_comes_and_goes(
    graphs: Any, preservation: str, rows: int, most: int
) -> None:
    """First block, others and last, each for more rows and for one, with and without gradients (guards); and a trial's."""
    pack = engine(4, compile="eager", checkpointing=True)
    assert pack.compiled
    common: dict[str, Any] = {"steps": 2, "preservation": preservation}
    tasks = (
        fine_tune("many", 1, rank=4, batch_size=rows + 2, **common),
        fine_tune("few", 2, rank=2, size=4, batch_size=rows, preservation_batch_size=rows, **common),
        fine_tune("alone", 3, batch_size=rows, steps=4, preservation="none"),
    )
    losses, expected = train(pack, *tasks), train(engine(4), *tasks)
    for name in expected:
        assert losses[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6)
    assert not counters["graph_break"]
    first = graphs()
    assert 1 < first <= most
    others = [
        fine_tune(
            f"task {seed}", seed, rank=1 + seed, size=4 + 2 * (seed % 3), batch_size=rows + seed % 4, **common
        )
        for seed in range(4)
    ]
    found = train(pack, diverging(fine_tune("wild", 7, batch_size=rows + 1, **common)), *others)
    assert graphs() == first and len(found) == 4 and len(pack.failures) == 1


@pytest.mark.slow
def test_blocks_compiled_by_inductor_train_as_uncompiled_ones(graphs: Any) -> None:
    compiled = train(engine(2, compile=True), *TASKS[:2])
    for name, losses in train(engine(2), *TASKS[:2]).items():
        assert compiled[name] == pytest.approx(losses, rel=1e-4, abs=1e-6)
    assert graphs() > 1


def test_without_a_compiler_the_engine_goes_on_uncompiled_and_says_so(graphs: Any, tmp_path: Path) -> None:
    # Not monkeypatch, which takes the setting for missing and hides it from every test that follows.
    no_compiler = inductor_config.patch({"cpp.cxx": (str(tmp_path / "no-compiler"),)})
    with no_compiler, fresh_cache(), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        pack = engine(2, compile=True)
    assert [str(each.message)[:29] for each in warned if each.category is UserWarning] == [
        "the transformer runs uncompil"
    ]
    assert not pack.compiled and not pack.bank.static
    assert train(pack, TASKS[0]) == train(engine(2), TASKS[0])
