"""Compiled blocks: the same values, and no graph more for other slots or other adapters."""

from collections.abc import Iterator

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch._dynamo.testing import CompileCounterWithBackend

from corrector.adapters import SD3_TARGETS, AdapterBank, AdapterError
from tests.support.small_banks import SD35_TARGETS, distance, filled_bank, predict, random_adapter
from tests.support.small_sd3 import Variant, small_transformer, transformer_inputs


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """No graphs of other tests, and room for all kinds of block, with and without gradients, at every size of batch."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=32):
        yield
    torch._dynamo.reset()


class Pair:
    """The same adapters on the same transformer, once plain and once with compiled blocks and a static bank.

    `blocks` is the number of blocks that are compiled: a test that is not about their kinds needs one.
    """

    def __init__(self, variant: Variant, backend: str, *, blocks: int = 3) -> None:
        self.counter = CompileCounterWithBackend(backend)
        targets = SD35_TARGETS if variant == "sd35" else SD3_TARGETS
        self.plain, self.compiled = small_transformer(variant), small_transformer(variant)
        self.banks = (
            filled_bank(self.plain, trainable=True, targets=targets),
            filled_bank(self.compiled, trainable=True, targets=targets, static=True),
        )
        for block in self.compiled.transformer_blocks[:blocks]:
            block.compile(backend=self.counter, fullgraph=True)

    @property
    def graphs(self) -> int:
        return self.counter.frame_count

    def forward(self, index: list[int]) -> float:
        """How far the compiled prediction is from the plain one."""
        inputs = transformer_inputs(len(index))
        with torch.no_grad(), self.banks[0].rows(index), self.banks[1].rows(index):
            return distance(predict(self.compiled, inputs), predict(self.plain, inputs))

    def train(self, index: list[int]) -> float:
        """How far the furthest of the gradients is."""
        inputs = transformer_inputs(len(index))
        for model, bank in zip((self.plain, self.compiled), self.banks, strict=True):
            with bank.rows(index):
                predict(model, inputs).square().mean().backward()
        gradients = [gradient_of(bank) for bank in self.banks]
        return distance(gradients[1], gradients[0])


def gradient_of(bank: AdapterBank) -> torch.Tensor:
    """``[slots + 1, P]``; cleared."""
    parts = []
    for parameter in bank.parameters():
        assert parameter.grad is not None
        parts.append(parameter.grad.flatten(1))
        parameter.grad = None
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize(
    ("variant", "backend"),
    [
        ("sd3", "eager"),
        pytest.param("sd35", "inductor", marks=(pytest.mark.slow, pytest.mark.timeout(900))),
    ],
)
def test_no_choice_of_slots_and_no_adapter_adds_a_graph(variant: Variant, backend: str) -> None:
    pair = Pair(variant, backend)
    assert pair.forward([1, 1, 2, 3]) <= 1e-5 and pair.train([1, 1, 2, 3]) <= 1e-5
    first = pair.graphs
    assert first <= 5  # blocks of three layers are of two kinds, and the first takes no gradient of its input
    for slot, rank in ((2, 3), (1, 8)):
        for bank, model in zip(pair.banks, (pair.plain, pair.compiled), strict=True):
            bank.load(slot, random_adapter(bank, model, rank=rank, alpha=2 * rank, seed=rank))
    for index in ([3, 0, 0, 1], [2, 2, 2, 2], [0, 1, 2, 3]):
        assert pair.forward(index) <= 1e-5 and pair.train(index) <= 1e-5
    assert pair.graphs == first


def test_all_other_numbers_of_rows_share_graphs() -> None:
    pair = Pair("sd3", "eager", blocks=1)
    pair.forward([1, 2])
    pair.forward([3, 1, 2])  # sizes are made symbolic when a second is met
    second = pair.graphs
    for rows in (7, 4):
        assert pair.forward([1 + row % 3 for row in range(rows)]) <= 1e-5
    assert pair.graphs == second
    assert pair.forward([1]) <= 1e-5  # PyTorch never makes a size of 1 symbolic
    third = pair.graphs
    assert pair.forward([3]) <= 1e-5 and pair.graphs == third
    with pytest.raises(AdapterError, match="3 rows, but rows"), torch.no_grad(), pair.banks[1].rows([1, 2]):
        predict(pair.compiled, transformer_inputs(3))


def test_blocks_of_a_kind_share_a_graph_however_deep_the_transformer() -> None:
    config = dict(small_transformer().config) | {"num_layers": 6}
    transformer = SD3Transformer2DModel.from_config(config).requires_grad_(False)
    counter = CompileCounterWithBackend("eager")
    bank = AdapterBank(transformer, slots=1, rank=4, trainable=True, static=True)
    bank.initialise(1, rank=4)
    for block in transformer.transformer_blocks:
        block.compile(backend=counter)
    with bank.rows([1, 0]):
        predict(transformer, transformer_inputs(2)).sum().backward()
    assert counter.frame_count == 3


def test_compiled_blocks_train_under_gradient_checkpointing() -> None:
    pair = Pair("sd3", "aot_eager", blocks=1)
    pair.compiled.enable_gradient_checkpointing()
    pair.compiled.train()
    assert pair.train([1, 2, 0, 3]) <= 1e-5


@pytest.mark.parametrize("static", [False, True], ids=["by run", "static"])
def test_a_transformer_compiled_whole_predicts_the_same_without_a_graph_break(static: bool) -> None:
    transformer = small_transformer()
    bank = filled_bank(transformer, trainable=False, static=static)
    compiled = torch.compile(transformer, backend="eager", fullgraph=True)
    inputs = transformer_inputs(4)
    with torch.no_grad():
        for index in ([1, 3, 3, 2], [2, 1, 3, 1]):
            with bank.rows(index):
                assert distance(predict(compiled, inputs), predict(transformer, inputs)) <= 1e-5
