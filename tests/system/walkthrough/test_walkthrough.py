"""The walk of cluster/README.md from its first block to its last, on real servers and with a batch as small as can be.

Each stage of the walk is a fixture that goes on from the one before it and types the guide's own blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from cluster import services
from corrector.files import file_sha256
from corrector.record.correction_record import WEIGHTS_FILE
from tests.support.guides import blocks
from tests.support.mlflow_pages import reviewer
from tests.support.paths import PROJECT
from tests.support.walkthrough_machine import CAT, EVALUATION, PERSON, PROMPTS, Machine

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("walks")]

# What the champion draws, what its export draws, and what the base draws, from one seed.
DRAW = """
import sys
import mlflow, torch
from diffusers import StableDiffusion3Pipeline
from corrector.base.sources import EMBEDDED_FOLDER
def draw(pipeline):
    generator = torch.Generator().manual_seed(0)
    return pipeline(prompt, num_inference_steps=4, generator=generator, output_type="np").images[0]
name, prompt, export = sys.argv[1:]
champion = draw(mlflow.diffusers.load_model(f"models:/{name}@champion").load_pipeline(device="cpu", torch_dtype=torch.float32))
plain = StableDiffusion3Pipeline.from_pretrained(EMBEDDED_FOLDER, torch_dtype=torch.float32)
base = draw(plain)
plain.load_lora_weights(export)
print(champion.shape, abs(champion - draw(plain)).max() < 1e-5, abs(champion - base).max() > 1e-3)
"""


@dataclass(frozen=True)
class Reviewed:
    """A machine on which CAT has been promoted, promoted anew and rolled back; `said` holds what the commands said."""

    machine: Machine
    said: dict[str, str]


START, REVIEW, SECOND_VERSION, RESTART = (
    block for block in blocks(PROJECT / "cluster" / "README.md") if block.is_run
)
CONNECTED = START.commands[-1:]
"""What tells a shell where the servers are."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Its servers are up, and its batch is corrected."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        # Six steps pass no gate, which is exit status 1 of `make correct`.
        started = machine.run(START, ends_badly=True)
        assert (machine.root / "runs" / "people" / "result.json").is_file(), started.stdout + started.stderr
        yield machine
    finally:
        services.down(states=machine.states)


@pytest.fixture(scope="module")
def corrected(machine: Machine) -> dict[str, dict[str, Any]]:
    """Name -> what `result.json` says of it."""
    return machine.result("people")


@pytest.fixture(scope="module")
def reviewed(machine: Machine, corrected: dict[str, dict[str, Any]]) -> Reviewed:
    """CAT after its review with the commands."""
    refused = machine.registry("promote", CAT, "1")
    assert refused.returncode == 2
    first = machine.run(REVIEW, after=CONNECTED)
    assert first.returncode == 0, first.stderr
    machine.write_batch(CAT)
    second = machine.run(SECOND_VERSION, after=CONNECTED, ends_badly=True)
    assert machine.result("rank-16")[CAT]["adapter"]["version"] == "2", second.stderr
    return Reviewed(
        machine, {"refused": refused.stderr, "review": first.stdout, "second version": second.stdout}
    )


@pytest.fixture(scope="module")
def up_again(reviewed: Reviewed) -> tuple[dict[str, Any], Machine]:
    """What was registered before `make down`, and the machine after the next `make up`."""
    machine = reviewed.machine
    before = machine.state_of_registry()
    restarted = machine.run(RESTART, after=CONNECTED)
    assert restarted.returncode == 0, restarted.stderr
    assert re.search(r"^3 versions, .*: 0 wrong$", restarted.stdout, re.MULTILINE)
    return before, machine


def test_the_batch_is_registered_for_review(machine: Machine, corrected: dict[str, dict[str, Any]]) -> None:
    assert {name: prompt["adapter"]["version"] for name, prompt in corrected.items()} == {
        PERSON: "1",
        CAT: "1",
    }
    listed = machine.registry("list")
    assert PERSON in listed.stdout and CAT in listed.stdout, listed.stderr


@pytest.mark.browser
def test_a_reviewer_approves_an_adapter_in_mlflows_own_pages(
    machine: Machine, corrected: dict[str, dict[str, Any]], chromium: Path
) -> None:
    with reviewer(chromium, machine.mlflow.tracking_uri) as pages:
        pages.open_version(PERSON, "1")
        assert f"rejected: {PROMPTS[PERSON][0]}" in pages.description()
        assert "not passed: nearer to the held-out exemplars" in pages.description()
        assert pages.tag("gate") == "not passed"
        assert pages.tag("adapter_sha256") == corrected[PERSON]["adapter"]["sha256"]

        review = pages.open_review(PERSON)
        expect(review.get_by_role("heading", level=1)).to_have_text(f"Review: {PERSON}")
        shown = review.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
        assert len(shown) >= 2 * EVALUATION["images"] and all(shown)

        pages.add_alias("reviewed-by-rosa")  # the first alias of a version, and one beside others
        pages.add_alias("champion")
    assert machine.aliases(PERSON)["champion"] == "1"
    history = machine.registry("history", PERSON).stdout
    assert re.search(r"moved\s+1\s+none\s+unknown", history)
    assert "champion" in machine.registry("show", PERSON).stdout


def test_the_command_wants_a_reason_where_the_gate_said_no(reviewed: Reviewed) -> None:
    assert f"{CAT}/1: the gate did not pass it" in reviewed.said["refused"]
    assert "say --why" in reviewed.said["refused"]
    assert f"{CAT}/1 promoted by" in reviewed.said["review"]


def test_a_roll_back_goes_back_to_the_first_of_two_champions(reviewed: Reviewed) -> None:
    said = reviewed.said["second version"]
    assert re.search(rf"{CAT}/2 promoted by .* \(before: 1\)", said)
    assert re.search(rf"{CAT}/1 rolled back by .* \(before: 2\)", said)
    assert reviewed.machine.aliases(CAT) == {"champion": "1"}
    history = reviewed.machine.registry("history", CAT).stdout
    for decision in ("promoted (overriding)", "rolled back", "blurs faces"):
        assert decision in history


def test_down_and_up_again_lose_nothing(up_again: tuple[dict[str, Any], Machine]) -> None:
    before, machine = up_again
    assert machine.state_of_registry() == before
    assert machine.aliases(CAT) == {"champion": "1"}


def test_the_champion_draws_after_down_and_up(
    up_again: tuple[dict[str, Any], Machine], corrected: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    _, machine = up_again
    exported = machine.registry("export", f"{CAT}@champion", str(tmp_path / "adapter"))
    assert exported.returncode == 0, exported.stderr
    assert file_sha256(tmp_path / "adapter" / WEIGHTS_FILE) == corrected[CAT]["adapter"]["sha256"]
    drawn = machine.with_services("-c", DRAW, CAT, PROMPTS[CAT][0], str(tmp_path / "adapter"))
    assert drawn.stdout.splitlines()[-1:] == ["(64, 64, 3) True True"], drawn.stderr
