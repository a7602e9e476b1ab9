"""The job as a user submits it: from a batch file to registered adapters, on a real Ray."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image
from rich.console import Console

from jobs.batch import check_batch
from jobs.correct import main
from jobs.driver import CorrectionJob
from jobs.plan import LaneWishes
from jobs.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]


def write_batch(
    folder: Path, base: Path, *, steps: int = 4, names: tuple[str, ...] = ("person", "dog")
) -> Path:
    """A batch of prompts on the small SD3, with pictures of noise as exemplars."""
    generator = torch.Generator().manual_seed(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(16):
            pixels = torch.randint(0, 256, (16, 16, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / name / f"{number}.png")
    prompts = [
        {
            "name": name,
            "prompt": f"a {name} lying on the grass",
            "exemplars": name,
            "guard_prompts": [f"a {name} sitting on the grass"],
        }
        for name in names
    ]
    batch = {
        "base": str(base),
        "defaults": {"rank": 2, "steps": steps, "batch_size": 2, "learning_rate": 1e-3},
        "evaluation": {
            "images": 16,
            "guard_images": 2,
            "hard_negatives": 2,
            "hard_negative_images": 2,
            "permutations": 99,
            "bootstrap": 20,
        },
        "prompts": prompts,
    }
    path = folder / "batch.json"
    path.write_text(json.dumps(batch))
    return path


def correct(path: Path, storage: Path, *, workers: int = 1, run: str = "batch") -> tuple[int, dict[str, Any]]:
    """Submit a batch in this process; returns the exit status and what `result.json` says."""
    work = check_batch(path, storage=storage, run=run)
    job = CorrectionJob(
        work, Console(file=io.StringIO()), wishes=LaneWishes(workers=workers), checkpoint_seconds=0.3
    )
    status = job.run()
    result: dict[str, Any] = json.loads((storage / run / "result.json").read_text())
    return status, result


def curves(storage: Path, result: dict[str, Any]) -> dict[str, list[float]]:
    """The losses of every prompt."""
    return {
        prompt["name"]: [
            point["loss"]
            for point in json.loads((Path(prompt["folder"]) / "record.json").read_text())["curve"]
        ]
        for prompt in result["prompts"]
    }


@pytest.mark.timeout(900)
def test_a_batch_becomes_registered_adapters_and_a_second_submission_repeats_nothing(
    cluster: None, tmp_path: Path, small_sd3: Path
) -> None:
    path = write_batch(tmp_path, small_sd3)
    status, result = correct(path, tmp_path / "runs")
    statuses = {prompt["name"]: prompt["status"] for prompt in result["prompts"]}
    assert set(statuses) == {"person", "dog"}
    # Noise teaches nothing, so the gate must not let either through; the adapters are registered for people to see.
    assert set(statuses.values()) == {"rejected"}
    assert status == 1
    for prompt in result["prompts"]:
        assert prompt["worked"]
        assert prompt["reasons"]
        assert prompt["adapter"]["aliases"] == []
        weights = Path(prompt["folder"]) / "adapter" / "pytorch_lora_weights.safetensors"
        assert weights.is_file()
        harm = prompt["scorecard"]["false_route"]
        assert harm["n"] == 4
        drawn = [negative["prompt"] for negative in harm["negatives"]]
        record = json.loads((Path(prompt["folder"]) / "record.json").read_text())
        assert [negative["prompt"] for negative in record["hard_negatives"]] == drawn
        assert all(negative in Path(result["report"]).read_text() for negative in drawn)
    assert "a person lying on the grass" in Path(result["report"]).read_text()

    _, again = correct(path, tmp_path / "runs")
    assert not any(prompt["worked"] for prompt in again["prompts"])
    assert [prompt["adapter"] for prompt in again["prompts"]] == [
        prompt["adapter"] for prompt in result["prompts"]
    ]

    # Another run finds the same work in the registry, and has everything of it without training.
    status, found = correct(path, tmp_path / "runs", run="another")
    assert status == 1
    for prompt, first in zip(found["prompts"], result["prompts"], strict=True):
        assert prompt["worked"]
        assert prompt["found"] == f"{first['adapter']['name']}/1"
        assert first["found"] is None
        assert [prompt[key] for key in ("status", "reasons", "adapter", "scorecard", "seconds")] == [
            first[key] for key in ("status", "reasons", "adapter", "scorecard", "seconds")
        ]
    assert curves(tmp_path / "runs", found) == curves(tmp_path / "runs", result)
    assert "a person lying on the grass" in Path(found["report"]).read_text()
    assert list((tmp_path / "runs" / "another" / "lanes").iterdir()) == []

    changed = json.loads(path.read_text())
    changed["prompts"][0]["rank"] = 1
    path.write_text(json.dumps(changed))
    # What is left this time is trained by a lane of two workers, which share its rows.
    _, third = correct(path, tmp_path / "runs", workers=2)
    assert [prompt["worked"] for prompt in third["prompts"]] == [True, False]
    assert {prompt["status"] for prompt in third["prompts"]} == {"rejected"}
    assert all(len(losses) == 4 for losses in curves(tmp_path / "runs", third).values())


@pytest.mark.timeout(900)
def test_killed_workers_change_nothing_but_the_time(cluster: None, tmp_path: Path, small_sd3: Path) -> None:
    undisturbed = write_batch(tmp_path / "a", small_sd3, steps=400)
    _, reference = correct(undisturbed, tmp_path / "a" / "runs")
    disturbed = write_batch(tmp_path / "b", small_sd3, steps=400)
    killer = threading.Thread(target=kill_a_lane_in_training, args=(tmp_path / "b" / "runs",))
    killer.start()
    _, result = correct(disturbed, tmp_path / "b" / "runs")
    killer.join()
    expected = curves(tmp_path / "a" / "runs", reference)
    for name, losses in curves(tmp_path / "b" / "runs", result).items():
        assert losses == pytest.approx(expected[name], abs=1e-4)


def kill_a_lane_in_training(storage: Path) -> None:
    """Kill every Ray Train worker of this process's Ray as soon as a prompt has a checkpoint."""
    until = time.monotonic() + 120
    while time.monotonic() < until and not list(storage.glob("batch/prompts/*/checkpoint/engine.json")):
        time.sleep(0.02)
    killed = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # others end meanwhile
            if any("RayTrainWorker" in part for part in process.cmdline()):
                process.kill()
                killed += 1
    assert killed


def test_a_batch_with_mistakes_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "batch.yaml").write_text("base: embedded\nprompts:\n  - promt: a person lying on the grass\n")
    command = [sys.executable, "-X", "importtime", "-m", "jobs.correct", str(tmp_path / "batch.yaml")]
    done = subprocess.run(
        [*command, "--storage", str(tmp_path / "runs")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert 'did you mean "prompt"' in done.stderr
    assert "Traceback" not in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "ray" not in imported
    assert not (tmp_path / "runs").exists()


def test_the_plan_is_printed_and_nothing_is_started(
    tmp_path: Path, small_sd3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_batch(tmp_path, small_sd3)
    assert main([str(path), "--plan", "--storage", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    assert "a person lying on the grass" in printed
    assert not RunFolder(tmp_path / "runs", "batch").path.exists()
