"""Measures whether curated exemplars make better adapters: the example prompts, trained with bad images and without.

    python -m tests.evaluation.measure_curated_training [--sets 2] [--images 96] [--steps 300] [--out FILE.json]

Each set has 24 images of an example prompt's scene, 7 of them bad: broken limbs, wrong pose, wrong place, blur or duplicates.
It is trained on as it is ("all"), and without what curation calls not effective ("curated"), with the same seeds. The oracle
judges images of fresh seeds, the same for both; "better" and "worse" count the pairs in which only the curated one's image is
right, and only the other's. FID is to 64 right renders that no set has. The gate's verdict is against the held-out images of
the set itself, as a job's.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import corrector
from corrector.adapters import Adapter, AdapterBank
from corrector.evaluation import FeatureMemory
from corrector.evaluation.distances import frechet_distance
from corrector.evaluation.images import as_stored
from corrector.evaluation.verdicts import mcnemar_p, right_share
from corrector.exemplars.curation import curate_folder
from corrector.loaded_base import NEGATIVE_PROMPT, Base
from corrector.prompts import FailingPrompt, load_batch
from tests.evaluation.compare_right import EXAMPLES, FIRST_SEED
from tests.evaluation.measure_curation import ROWS, files_of, save
from tests.oracle.judge import OracleJudge
from tests.support.scenes import pictures
from tests.world.scenes import Scene, canonical_prompt, scenes

ARMS = ("all", "curated")
MIXED = next(row for row in ROWS if row.name == "all five mixed")


@dataclass(frozen=True)
class Trained:
    """What came of one set, trained on as it is or curated.

    Attributes:
        exemplars: Number of images that were trained on or held out.
        bad: How many of them are bad.
        right: Whether the oracle calls each image of a fresh seed right.
        fid: Distance to right renders, by extractor.
        passed: The gate's verdict, against the set's own held-out images.
    """

    prompt: str
    set_number: int
    arm: str
    exemplars: int
    bad: int
    right: list[bool]
    fid: dict[str, float]
    passed: bool


class Measurement:
    """The base, the oracle, and right renders of every scene."""

    def __init__(self, images: int, steps: int) -> None:
        self.images, self.steps = images, steps
        self.base: Base = corrector.load_base("embedded")
        self.judge, self.memory = OracleJudge(), FeatureMemory()

    def trained(self, entry: FailingPrompt, scene: Scene, number: int, folder: Path) -> list[Trained]:
        """Train on the files in `folder` as they are, and without those that are not effective."""
        files, _ = files_of(MIXED, scene, number, 40)
        save(files, folder)
        found = []
        for arm in ARMS:
            if arm == "curated":
                verdicts = curate_folder(
                    folder, resolution=self.base.spec.resolution, memory=self.memory, prompt=entry.prompt
                )
                for image in verdicts.images:
                    if image.grade == "not effective":
                        (folder / image.name).unlink()
            left = sorted(path.name for path in folder.iterdir())
            prompt = FailingPrompt.model_validate({**dict(entry), "exemplars": str(folder)})
            correction = corrector.correct(
                prompt,
                self.base,
                hyperparameters={"seed": number, "steps": self.steps},
                accept_exemplars=True,
                progress=False,
            )
            drawn = self._drawn(entry.prompt, correction.adapter)
            found.append(
                Trained(
                    prompt=entry.prompt,
                    set_number=number,
                    arm=arm,
                    exemplars=len(left),
                    bad=sum(name.startswith("bad") for name in left),
                    right=list(self.judge(drawn, [entry.prompt] * len(drawn))),
                    fid=self._fid(drawn, pictures(scene, range(50_000, 50_064))),
                    passed=correction.verdict.passed,
                )
            )
        return found

    def _drawn(self, prompt: str, adapter: Adapter) -> Tensor:
        bank = AdapterBank(self.base.transformer, slots=1, rank=adapter.rank)
        try:
            bank.load(1, adapter)
            wanted = [(prompt, FIRST_SEED + number) for number in range(self.images)]
            rows = self.base.rows(wanted, self.base.encode([NEGATIVE_PROMPT, prompt]), slot=1)
            return as_stored(self.base.sample_rows(rows, bank))
        finally:
            bank.remove()

    def _fid(self, drawn: Tensor, renders: Tensor) -> dict[str, float]:
        return {
            name: float(
                frechet_distance(*(self.memory.features(name, images) for images in (drawn, renders)))
            )
            for name in self.memory.extractors
        }


def _line(name: str, found: Sequence[Trained]) -> str:
    """One line of the table: the pairs of all sets in `found`."""
    right = [[each for one in found if one.arm == arm for each in one.right] for arm in ARMS]
    shares = [right_share(each) for each in right]
    better, worse = (sum(a and not b for a, b in zip(right[i], right[1 - i], strict=True)) for i in (1, 0))
    arms = [[one for one in found if one.arm == arm] for arm in ARMS]
    fid = [
        ", ".join(f"{sum(one.fid[name] for one in arm) / len(arm):.0f}" for name in sorted(found[0].fid))
        for arm in arms
    ]
    bad = [f"{sum(one.bad for one in arm)} of {sum(one.exemplars for one in arm)}" for arm in arms]
    rates = [f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]" for share in shares]
    passed = [f"{sum(one.passed for one in arm)} of {len(arm)}" for arm in arms]
    return (
        f"| {name} | {' / '.join(bad)} | {' | '.join(rates)} | {better} | {worse} | {mcnemar_p(*right):.2g} | "
        f"{' / '.join(fid)} | {' / '.join(passed)} |"
    )


def main(arguments: Sequence[str]) -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", type=int, default=2, help="sets of each prompt")
    parser.add_argument("--images", type=int, default=96, help="fresh images of each adapter")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", default="", help="prompts that hold this text")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    measurement, found = Measurement(given.images, given.steps), []
    by_prompt = {canonical_prompt(scene): scene for scene in scenes()}
    print(
        "| prompt | bad exemplars, all / curated | right, all | right, curated | better | worse | p of better | "
        f"FID ({', '.join(sorted(measurement.memory.extractors))}), all / curated | gate passed |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for entry in load_batch(EXAMPLES).prompts:
        if given.only not in entry.prompt:
            continue
        for number in range(given.sets):
            with tempfile.TemporaryDirectory() as folder:
                found += measurement.trained(entry, by_prompt[entry.prompt], number, Path(folder))
        print(_line(entry.prompt, [one for one in found if one.prompt == entry.prompt]), flush=True)
    print(_line("all of them", found))
    if given.out:
        given.out.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
