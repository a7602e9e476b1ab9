"""Learning rates against diffusers' schedulers."""

import pytest
import torch
from diffusers.optimization import get_scheduler

from corrector.dreambooth.learning_rate import learning_rate
from corrector.prompts import HyperParameters


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_equals_diffusers_schedule(name: str, warmup: int) -> None:
    settings = HyperParameters(learning_rate=3e-4, lr_schedule=name, warmup_steps=warmup, steps=40)  # type: ignore[arg-type]
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    reference_name = "constant_with_warmup" if name == "constant" else name
    reference = get_scheduler(reference_name, optimiser, num_warmup_steps=warmup, num_training_steps=40)
    for step in range(40):
        assert learning_rate(settings, step) == pytest.approx(
            reference.get_last_lr()[0], rel=1e-12, abs=1e-18
        )
        optimiser.step()
        reference.step()
