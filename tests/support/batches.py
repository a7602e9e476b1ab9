"""Small batches and searches, submitted from this process to the Ray that it is connected to."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console

from corrector.record.search_results import PromptSearchResult, SearchResult
from jobs.correction.driver import CorrectionJob
from jobs.inputs.batch import check_batch
from jobs.lanes.plan import LaneLimits
from jobs.tuning.driver import SearchJob
from jobs.tuning.plan import check_search_work

EVALUATION = {
    "images": 16,
    "guard_images": 2,
    "hard_negatives": 2,
    "hard_negative_images": 2,
    "permutations": 99,
    "bootstrap": 20,
    "num_inference_steps": 2,
}
"""The least that the gate takes by default."""
SPACE = {"rank": [1, 2, 4], "learning_rate": [1e-4, 1e-3, 1e-2]}


def write_batch(
    folder: Path, base: Path, *, steps: int = 4, names: tuple[str, ...] = ("person", "dog"), **sections: Any
) -> Path:
    """A batch of these prompts on `base`, with pictures of noise as exemplars; `sections` are added to the file."""
    generator = torch.Generator().manual_seed(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(16):
            pixels = torch.randint(0, 256, (16, 16, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / name / f"{number}.png")
    batch = {
        "base": str(base),
        "defaults": {"rank": 2, "steps": steps, "batch_size": 2, "learning_rate": 1e-3},
        "evaluation": EVALUATION,
        "prompts": [
            {
                "name": name,
                "prompt": f"a {name} lying on the grass",
                "exemplars": name,
                "guard_prompts": [f"a {name} sitting on the grass"],
            }
            for name in names
        ],
    }
    path = folder / "batch.json"
    path.write_text(json.dumps(batch | sections))
    return path


def write_search(
    folder: Path, base: Path, *, steps: int = 8, names: tuple[str, ...] = ("person",), **search: Any
) -> Path:
    """A batch with a search of two rungs, of 2 and of 4 images."""
    given = {"trials": 5, "rungs": 2, "reduction_factor": 2, "first_images": 2, "space": SPACE} | search
    sections = {"search": given, "evaluation": EVALUATION | {"images": 4}, "gate": {"min_images": 4}}
    return write_batch(folder, base, steps=steps, names=names, **sections)


def correct(path: Path, storage: Path, *, workers: int = 1, run: str = "batch") -> tuple[int, dict[str, Any]]:
    """Submit a batch; the exit status, and what `result.json` says."""
    work = check_batch(path, storage=storage, run=run)
    job = CorrectionJob(
        work, Console(file=io.StringIO()), limits=LaneLimits(workers=workers), checkpoint_seconds=0.0
    )
    status = job.run()
    result: dict[str, Any] = json.loads((storage / run / "result.json").read_text())
    return status, result


def search(path: Path, storage: Path, *, resume: bool = False) -> tuple[int, SearchResult, str]:
    """Submit a search; the exit status, its result, and what it printed."""
    work = check_batch(path, storage=storage, run="run")
    check_search_work(work)
    printed = io.StringIO()
    limits = LaneLimits(lanes=1, slots=2)
    job = SearchJob(work, Console(file=printed, width=200), limits=limits, resume=resume)
    status = job.run()
    result = SearchResult.model_validate_json((storage / "run" / "search.json").read_text())
    return status, result, printed.getvalue()


def losses(result: dict[str, Any]) -> dict[str, list[float]]:
    """Name -> the loss of every step, as the prompt's record has it."""
    return {
        prompt["name"]: [
            point["loss"]
            for point in json.loads((Path(prompt["folder"]) / "record.json").read_text())["curve"]
        ]
        for prompt in result["prompts"]
    }


def scores(prompt: PromptSearchResult) -> list[tuple[object, ...]]:
    """What each trial tried, and its score at each rung."""
    return [
        (trial.configuration, [(report.steps, report.score.score) for report in trial.reports])
        for trial in prompt.trials
    ]
