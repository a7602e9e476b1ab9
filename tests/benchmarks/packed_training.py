"""Eight fine-tunes packed in one lane against the same eight one after another: images a second, and the ratio.

    python -m tests.benchmarks.packed_training [--out FILE.json]

Both use every core that they are given, and the same engine; "one after another" is an engine of one slot, eight times.
An image is one exemplar row that went through an optimiser step; with guard preservation its guard row comes on top.
A round is the same work done both ways, rounds alternate so that a busy machine slows both alike, and the best of each
counts.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

from corrector.base import LatentPosterior, TextEmbeddings
from corrector.dreambooth import Engine, FineTune
from corrector.prompts import HyperParameters

TOKENS = 32
EXEMPLARS = 12
GUARDS = 5


@dataclass(frozen=True)
class Result:
    """One setting's outcome."""

    batch: int
    preservation: str
    packed: float
    """Images a second of all fine-tunes together, packed."""
    sequential: float
    """The same, one fine-tune after another."""
    ratio: float
    cpu_ratio: float
    """The same of processor seconds, which other work on the machine disturbs less."""


def transformer() -> SD3Transformer2DModel:
    """The embedded base's transformer; what its weights are does not matter to speed."""
    torch.manual_seed(0)
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=5,
        joint_attention_dim=128,
        caption_projection_dim=160,
        pooled_projection_dim=128,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )


def fine_tunes(count: int, batch: int, preservation: str, rank: int) -> list[FineTune]:
    """Fine-tunes that never end, each with data of its own."""
    config = transformer().config
    tasks = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        mean = torch.randn(
            EXEMPLARS, config.in_channels, config.sample_size, config.sample_size, generator=generator
        )
        prompt = torch.randn(1 + GUARDS, TOKENS, config.joint_attention_dim, generator=generator)
        pooled = torch.randn(1 + GUARDS, config.pooled_projection_dim, generator=generator)
        settings = HyperParameters(
            rank=rank,
            batch_size=batch,
            steps=100_000,
            seed=seed,
            preservation="guard" if preservation == "guard" else "none",
        )
        tasks.append(
            FineTune(
                name=f"fine-tune {seed}",
                posterior=LatentPosterior(mean, torch.full_like(mean, 0.05)),
                prompt=TextEmbeddings(prompt[:1], pooled[:1]),
                hyperparameters=settings,
                guards=TextEmbeddings(prompt[1:], pooled[1:]),
            )
        )
    return tasks


def measure(slots: int, batch: int, preservation: str, *, rank: int, rounds: int, steps: int) -> Result:
    """Interleaved rounds: ``steps`` steps of the pack, then as many of every one of its fine-tunes alone."""
    tasks = fine_tunes(slots, batch, preservation, rank)
    packed, alone = (
        Engine(transformer(), FlowMatchEulerDiscreteScheduler(shift=3.0), slots=width, rank=rank)
        for width in (slots, 1)
    )
    for task in tasks:
        packed.admit(task)
    alone.admit(tasks[0])
    packed.step()
    alone.step()
    best = {"packed": (float("inf"), float("inf")), "alone": (float("inf"), float("inf"))}
    for _ in range(rounds):
        for name, engine, turns in (("packed", packed, steps), ("alone", alone, slots * steps)):
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(turns):
                engine.step()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            best[name] = min(best[name][0], spent[0]), min(best[name][1], spent[1])
    images = slots * batch * steps
    return Result(
        batch=batch,
        preservation=preservation,
        packed=round(images / best["packed"][0], 2),
        sequential=round(images / best["alone"][0], 2),
        ratio=round(best["alone"][0] / best["packed"][0], 3),
        cpu_ratio=round(best["alone"][1] / best["packed"][1], 3),
    )


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    model = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        names = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description="Packed fine-tunes against the same one after another.")
    parser.add_argument("--slots", type=int, default=8, help="fine-tunes in the pack")
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[4], help="exemplar rows per fine-tune and step"
    )
    parser.add_argument("--preservation", nargs="+", choices=["guard", "none"], default=["guard", "none"])
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="steps per round and fine-tune")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for both")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    results = []
    for preservation in options.preservation:
        for batch in options.batch:
            result = measure(
                options.slots,
                batch,
                preservation,
                rank=options.rank,
                rounds=options.rounds,
                steps=options.steps,
            )
            results.append(result)
            print(
                f"batch {batch}, preservation {preservation:5}: {result.packed:7.2f} images/s packed, "
                f"{result.sequential:7.2f} one after another, ratio {result.ratio:.2f} "
                f"(of processor time {result.cpu_ratio:.2f})",
                flush=True,
            )
    if options.out:
        options.out.write_text(
            json.dumps({"machine": about, "results": [asdict(result) for result in results]}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
