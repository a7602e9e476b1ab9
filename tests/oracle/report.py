"""The base's right-rates by the oracle: `python -m tests.oracle.report [FOLDER] [--sheet FILE]`."""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from tests.oracle.oracle import Oracle
from tests.world.export import GUIDANCE_SCALE, STEPS
from tests.world.pipeline import SEQUENCE_LENGTH
from tests.world.scenes import Scene, canonical_prompt, scenes

FOLDER = Path("corrector/base/embedded/weights")


def load(folder: Path = FOLDER) -> StableDiffusion3Pipeline:
    """The base in float32, silent."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(
    pipeline: StableDiffusion3Pipeline,
    prompt: str,
    seeds: range,
    guidance: float = GUIDANCE_SCALE,
    steps: int = STEPS,
) -> torch.Tensor:
    """The base's images of the prompt, one a seed, [N, 3, 64, 64] in 0..1."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    images = pipeline(
        [prompt] * len(seeds),
        height=64,
        width=64,
        max_sequence_length=SEQUENCE_LENGTH,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=generators,
        output_type="np",
    ).images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def sheet(rows: list[torch.Tensor], zoom: int = 2) -> Image.Image:
    """Rows of [N, 3, 64, 64] images in 0..1 as one picture."""
    grid = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    pixels = (grid.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


def main() -> None:
    """Print the right-rate of every scene and of the two groups; optionally write a contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--seeds", type=int, default=32, help="images a prompt")
    parser.add_argument("--every", type=int, default=1, help="judge only every n-th scene")
    parser.add_argument("--guidance", type=float, default=GUIDANCE_SCALE)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--sheet", type=Path, help="write the first eight images of each prompt here")
    options = parser.parse_args()
    pipeline, oracle = load(options.folder), Oracle.load()
    rates: dict[bool, list[float]] = {False: [], True: []}
    rows: list[torch.Tensor] = []
    started = time.monotonic()
    for scene in scenes()[:: options.every]:
        images = sample(
            pipeline, canonical_prompt(scene), range(options.seeds), options.guidance, options.steps
        )
        rates[scene.broken].append(_line(oracle, images, scene))
        rows.append(images[:8])
    for broken, name in ((False, "right"), (True, "broken")):
        if rates[broken]:
            print(f"{name} prompts: {np.mean(rates[broken]):.1%} right, worst {min(rates[broken]):.0%}")
    count = len(rows) * options.seeds
    print(f"{(time.monotonic() - started) / count:.2f} s an image")
    if options.sheet is not None:
        half = (len(rows) + 1) // 2
        rows += [torch.ones_like(rows[0])] * (2 * half - len(rows))
        sheet([torch.cat(pair) for pair in zip(rows[:half], rows[half:], strict=True)]).save(options.sheet)


def _line(oracle: Oracle, images: torch.Tensor, scene: Scene) -> float:
    verdicts = oracle.judge(images)
    rate = sum(verdict.fits(scene) for verdict in verdicts) / len(verdicts)
    parts = {
        "subject": sum(verdict.subject == scene.subject for verdict in verdicts),
        "pose": sum(verdict.pose == scene.pose for verdict in verdicts),
        "place": sum(verdict.place == scene.place for verdict in verdicts),
        "intact": sum(verdict.intact for verdict in verdicts),
    }
    detail = " ".join(f"{name} {count / len(verdicts):4.0%}" for name, count in parts.items())
    mark = "broken" if scene.broken else "      "
    print(f"{canonical_prompt(scene):34s} {mark} {rate:4.0%}   {detail}", flush=True)
    return rate


if __name__ == "__main__":
    main()
