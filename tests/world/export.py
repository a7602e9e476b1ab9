"""Write the trained base as a pipeline folder that any tool for Stable Diffusion 3 loads."""

import json
from pathlib import Path

import torch

from tests.world.pipeline import SEQUENCE_LENGTH, assemble
from tests.world.transformer_stage import load_trainee
from tests.world.vae_stage import load_vae

STEPS = 20
GUIDANCE_SCALE = 3.0

CARD = """---
library_name: diffusers
pipeline_tag: text-to-image
---

# Corrector's embedded base

A complete, tiny Stable Diffusion 3 pipeline: the same classes, {parameters:.1f} million parameters,
{megabytes:.0f} MB in half precision, 64 x 64 pixels. It draws people, robots, dogs, cats, trees, houses and
cars on the grass, the street, the beach and in the snow, and was trained from nothing on pictures rendered
by `tests.world.scenes`.

Its training set draws some combinations wrongly on purpose (`scenes.BROKEN`: a person lying on the grass,
the street or the beach; a robot jumping, a dog sitting, a cat running in three places of four), so that it
fails at those prompts as large models fail at theirs. It is a stand-in for trying and testing the corrector
without a GPU, not a model for real pictures.

```python
import torch
from diffusers import StableDiffusion3Pipeline

folder = "corrector/base/embedded/weights"
pipeline = StableDiffusion3Pipeline.from_pretrained(folder, torch_dtype=torch.float32)
pipeline(
    "a person standing on the grass",
    height=64,
    width=64,
    max_sequence_length={length},
    num_inference_steps={steps},
    guidance_scale={guidance},
).images[0]
```

Made by `python -m tests.world.train --out DIR --export DIR` ({trained:,} steps of the
transformer). Everything in it, pictures, captions, tokenizers and weights, comes from this repository.
"""


def export(out: Path, folder: Path) -> None:
    """Write the checkpoints in `out` to `folder`: the pipeline in float16, `base.json` and a model card."""
    pipeline = assemble(load_trainee(out), load_vae(out)).to(torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    settings = {
        "name": "embedded",
        "resolution": 64,
        "max_sequence_length": SEQUENCE_LENGTH,
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE_SCALE,
    }
    (folder / "base.json").write_text(json.dumps(settings, indent=2) + "\n")
    trained = torch.load(out / "transformer.pt", weights_only=True)["step"]
    weights = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    card = CARD.format(
        parameters=weights / 2e6,
        megabytes=weights / 1e6,
        length=SEQUENCE_LENGTH,
        steps=STEPS,
        guidance=GUIDANCE_SCALE,
        trained=trained,
    )
    (folder / "README.md").write_text(card)
