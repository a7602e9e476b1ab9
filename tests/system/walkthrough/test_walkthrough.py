"""README's section "Review" from its first command to its last, on real servers and with a batch as small as can be.

Each stage of the walk is a fixture that goes on from the one before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from cluster import ports, services
from corrector.files import file_sha256
from corrector.record.correction import WEIGHTS_FILE
from tests.support.mlflow_pages import reviewer
from tests.support.walkthrough_machine import CAT, EVALUATION, PERSON, PROMPTS, Machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

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


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Its servers are up."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        up = machine.services("up", f"--mlflow-port={ports.choose('port', None, taken=set())}")
        assert up.returncode == 0, up.stderr
        yield machine
    finally:
        services.down(states=machine.states)


@pytest.fixture(scope="module")
def corrected(machine: Machine) -> dict[str, dict[str, Any]]:
    """Name -> what `result.json` says of it."""
    return {prompt["name"]: prompt for prompt in machine.correct(PERSON, CAT, steps=6)}


@pytest.fixture(scope="module")
def reviewed(machine: Machine, corrected: dict[str, dict[str, Any]]) -> Reviewed:
    """CAT after its review with the commands."""
    said = {}
    refused = machine.registry("promote", CAT, "1")
    assert refused.returncode == 2
    said["refused"] = refused.stderr
    promoted = machine.registry("promote", CAT, "1", "--why", "the walk", "--who", "rosa")
    assert promoted.returncode == 0, promoted.stderr
    said["promoted"] = promoted.stdout
    (again,) = machine.correct(CAT, steps=7)
    assert again["adapter"]["version"] == "2"
    assert machine.registry("promote", CAT, "2", "--why", "more steps", "--who", "rosa").returncode == 0
    said["aliases with two champions"] = str(machine.aliases(CAT))
    back = machine.registry("rollback", CAT, "--why", "blurs faces", "--who", "rosa")
    assert back.returncode == 0, back.stderr
    said["rolled back"] = back.stdout
    return Reviewed(machine, said)


@pytest.fixture(scope="module")
def up_again(reviewed: Reviewed) -> tuple[dict[str, Any], Machine]:
    """What was registered before `down`, and the machine after the next `up`."""
    machine = reviewed.machine
    before = machine.state_of_registry()
    assert machine.services("down").returncode == 0
    assert machine.services("status").returncode == 3
    up = machine.services("up")
    assert up.returncode == 0, up.stderr
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
    assert reviewed.said["promoted"] == f"{CAT}/1 promoted by rosa\n"


def test_a_roll_back_goes_back_to_the_first_of_two_champions(reviewed: Reviewed) -> None:
    assert reviewed.said["aliases with two champions"] == str({"champion": "2", "previous": "1"})
    assert reviewed.said["rolled back"] == f"{CAT}/1 rolled back by rosa (before: 2)\n"
    assert reviewed.machine.aliases(CAT) == {"champion": "1"}
    history = reviewed.machine.registry("history", CAT).stdout
    for decision in ("promoted (overriding)", "rolled back", "blurs faces"):
        assert decision in history


def test_down_and_up_again_lose_nothing(up_again: tuple[dict[str, Any], Machine]) -> None:
    before, machine = up_again
    assert machine.state_of_registry() == before
    assert machine.aliases(CAT) == {"champion": "1"}
    verified = machine.registry("verify")
    assert verified.returncode == 0, verified.stdout
    assert re.search(r"^3 versions, .*: 0 wrong$", verified.stdout, re.MULTILINE)


def test_the_champion_draws_after_down_and_up(
    up_again: tuple[dict[str, Any], Machine], corrected: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    _, machine = up_again
    exported = machine.registry("export", f"{CAT}@champion", str(tmp_path / "adapter"))
    assert exported.returncode == 0, exported.stderr
    assert file_sha256(tmp_path / "adapter" / WEIGHTS_FILE) == corrected[CAT]["adapter"]["sha256"]
    drawn = machine.with_services("-c", DRAW, CAT, PROMPTS[CAT][0], str(tmp_path / "adapter"))
    assert drawn.stdout.splitlines()[-1:] == ["(64, 64, 3) True True"], drawn.stderr
