"""From a list of prompts to a batch file of those that fail: the embedded base on a real Ray, and a judge behind HTTP."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from cluster.head import Head
from jobs.diagnose import main
from tests.support.commands import run
from tests.support.images_api import KEY
from tests.support.judge_api import judge_api
from tests.support.processes import title

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.usefixtures("ray_connection")]

PROMPTS = ("a tree on the grass", "a person lying on the grass", "A robot jumping on the snow.")


def test_a_list_becomes_a_batch_of_what_fails_and_a_second_submission_draws_and_asks_nothing(
    ray_head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, storage = tmp_path / "prompts.txt", tmp_path / "runs"
    listed.write_text("\n".join((*PROMPTS, "A person  lying on the grass")))
    killed: list[int] = []

    def kill_one() -> None:
        """With the first image to judge, one of the processes that draw is killed."""
        if killed:
            return
        for process in ray_head.processes.find():
            with suppress(psutil.NoSuchProcess):
                if not killed and "Drawer" in title(process):
                    killed.append(process.pid)
                    process.kill()

    with judge_api() as api:
        api.arrived = kill_one
        monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "cache"))
        settings = {"URL": api.url, "MODEL": "eyes", "PRICE": "0.01", "BUDGET": "5", "KEY": KEY}
        for name, value in settings.items():
            monkeypatch.setenv(f"CORRECTOR_JUDGE_{name}", value)

        results = []
        for name in ("first.yaml", "second.yaml"):
            page, out = tmp_path / f"{name}.html", tmp_path / name
            ended = run(main, listed, "--storage", storage, "--out", out, "--page", page, "--yes")
            assert ended.returncode == 0, ended.stdout + ended.stderr
            results.append(json.loads((storage / "prompts" / "diagnosis.json").read_text()))
            assert page.read_text().count("data:image/webp;base64,") == api.billed
        asked = len(api.requests)

    first, second = results
    assert killed
    assert {each["prompt"]: each["verdict"] for each in first["prompts"]} == dict(
        zip(PROMPTS, ("holds", "fails", "fails"), strict=True)
    )
    assert first["drawn"] == asked == api.billed == sum(each["n"] for each in first["prompts"]) == 40
    assert (second["drawn"], second["prompts"]) == (0, first["prompts"])
    batch = yaml.safe_load((tmp_path / "first.yaml").read_text())
    assert {entry["prompt"] for entry in batch["prompts"]} == set(PROMPTS[1:])
    assert "a person lying on the grass" in ended.stdout
