"""What four bits do to a prediction: the figures in ``corrector/base/precision.py``.

``python -m tests.benchmarks.precision`` prints the error of the velocity, relative to its norm in fp32, with attention
and feed-forward quantised as they are, and with modulation quantised too: on the embedded base, and on two random layers of
SD3.5-medium at its true width.
"""

from collections.abc import Callable

import torch
from diffusers import SD3Transformer2DModel

from corrector.base import load_transformer, precision, resolve_base
from tests.support.sd3_family import random_transformer


def error(transformer: SD3Transformer2DModel, *, modulation: bool) -> float:
    """Norm of what rounding the quantised weights changes in a prediction, over the prediction's norm."""
    generator = torch.Generator().manual_seed(0)
    config = transformer.config
    inputs = {
        "hidden_states": torch.randn(4, config.in_channels, 16, 16, generator=generator),
        "encoder_hidden_states": torch.randn(4, 32, config.joint_attention_dim, generator=generator),
        "pooled_projections": torch.randn(4, config.pooled_projection_dim, generator=generator),
        "timestep": torch.tensor([100.0, 350.0, 600.0, 900.0]),
    }
    with torch.no_grad():
        exact = transformer(**inputs).sample
        for name, weight in transformer.named_parameters():
            shown = name.replace("norm", "modulation") if modulation else name
            if precision.is_quantised_weight(shown, weight.shape):
                weight.copy_(precision.rounded(weight, "nf4"))
        rounded = transformer(**inputs).sample
    return float((rounded - exact).norm() / exact.norm())


def main() -> None:
    """Prints the table."""
    bases: dict[str, Callable[[], SD3Transformer2DModel]] = {
        "embedded": lambda: load_transformer(resolve_base("embedded")),
        "SD3.5-medium, two layers": lambda: random_transformer("sd3.5-medium", layers=2),
    }
    print(f"{'base':26} {'as it is':>9} {'with modulation':>16}")
    for name, base in bases.items():
        plain, more = (error(base(), modulation=modulation) for modulation in (False, True))
        print(f"{name:26} {plain:9.3f} {more:16.3f}")


if __name__ == "__main__":
    main()
