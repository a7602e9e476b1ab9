"""Compares how many images are right with the adapters of two runs, by the oracle and on the same fresh seeds.

    python -m tests.evaluation.compare_right RUN OTHER [--images 96] [--guard-images 8]

RUN and OTHER are run folders of the example batch on the embedded base, say of two versions of this project. Both adapters of
a prompt draw the prompt's and its guard prompts' images of the same seeds, which no correction draws. "Better" and "worse"
count the pairs in which only OTHER's image is right, and only RUN's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import corrector
from corrector.adapters import AdapterBank, load_adapter
from corrector.evaluation.images import as_stored
from corrector.evaluation.verdicts import mcnemar_p
from corrector.loaded_base import NEGATIVE_PROMPT
from corrector.prompts import load_batch
from corrector.record.correction_record import ADAPTER_FOLDER
from tests.oracle.judge import OracleJudge

FIRST_SEED = 900_000
EXAMPLES = Path("jobs/examples/people.yaml")


def adapter_folder(run: Path, name: str) -> Path:
    """Where the run folder keeps the adapter of the prompt called `name`."""
    (found,) = run.glob(f"prompts/{name}-*/record/{ADAPTER_FOLDER}")
    return found


def main(arguments: Sequence[str]) -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN")
    parser.add_argument("--images", type=int, default=96, help="of each prompt")
    parser.add_argument("--guard-images", type=int, default=8, help="of each guard prompt")
    given = parser.parse_args(arguments)
    base, judge = corrector.load_base("embedded"), OracleJudge()
    print(
        "| prompt | images | right | right in the other run | better | worse | p of worse |\n|---|---|---|---|---|---|---|"
    )
    for entry in load_batch(EXAMPLES).prompts:
        adapters = [load_adapter(adapter_folder(run, entry.name)) for run in given.runs]
        bank = AdapterBank(base.transformer, slots=2, rank=max(adapter.rank for adapter in adapters))
        try:
            for slot, adapter in enumerate(adapters, start=1):
                bank.load(slot, adapter)
            counts = [
                (entry.prompt, given.images),
                *((text, given.guard_images) for text in entry.guard_prompts),
            ]
            embeddings = base.encode([NEGATIVE_PROMPT, *(text for text, _ in counts)])
            for text, count in counts:
                wanted = [(text, FIRST_SEED + number) for number in range(count)]
                rows = [row for slot in (1, 2) for row in base.rows(wanted, embeddings, slot=slot)]
                images = as_stored(base.sample_rows(rows, bank))
                right = torch.tensor(judge(images, [text] * (2 * count))).view(2, count)
                better, worse = (int((right[a] & ~right[b]).sum()) for a, b in ((1, 0), (0, 1)))
                print(
                    f"| {text} | {count} | {int(right[0].sum())} | {int(right[1].sum())} | {better} | {worse} | "
                    f"{mcnemar_p(right[1].tolist(), right[0].tolist()):.2g} |",
                    flush=True,
                )
        finally:
            bank.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
