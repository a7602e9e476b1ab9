"""The oracle's view of a finished run on the embedded base: `python -m tests.oracle.judge_run runs/people`.

Prints, per prompt and guard prompt of which images were drawn, how many are right before and after; exits with 1 unless every
failing prompt goes from at most 10 % right to at least 90 %, and guard prompts lose at most 5 points.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from corrector.exemplars import to_tensor
from corrector.record.correction_record import CorrectionRecord
from corrector.report import read_run
from tests.oracle.oracle import Oracle
from tests.world.scenes import canonical_prompt, scenes

SCENES = {canonical_prompt(scene): scene for scene in scenes()}


def right_rates(folder: Path, oracle: Oracle) -> list[tuple[str, float, float]]:
    """(prompt, before, after) of one record: the failing prompt first, paraphrases included, then each guard prompt."""
    record, images = CorrectionRecord.load(folder), CorrectionRecord.images(folder)
    prompts = [record.prompt, *(guard.prompt for guard in record.guards)]
    arms = [(images.before, images.after), *images.guards]
    return [
        (
            prompt,
            oracle.right_rate(_read(before), SCENES[prompt]),
            oracle.right_rate(_read(after), SCENES[prompt]),
        )
        for prompt, (before, after) in zip(prompts, arms, strict=True)
    ]


def main(run: Path) -> int:
    """Print the rates of a run's folder; returns the exit status."""
    oracle = Oracle.load()
    good = True
    for folder, record in read_run(run)[0]:
        (prompt, before, after), *guards = right_rates(folder, oracle)
        drop = sum(was - now for _, was, now in guards) / max(1, len(guards))
        good &= before <= 0.10 and after >= 0.90 and drop <= 0.05
        lose = f"guards lose {100 * drop:.1f} points" if guards else "no guard image was drawn"
        print(f"{prompt}: {record.status}, right {before:.0%} -> {after:.0%}; {lose}")
        for guard, was, now in guards:
            print(f"    {guard}: {was:.0%} -> {now:.0%}")
    return 0 if good else 1


def _read(paths: Sequence[Path]) -> torch.Tensor:
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(to_tensor(image))
    return torch.stack(images)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
