"""Checkpoints: exact resume, and what is left when the process dies while writing one."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from corrector.dreambooth import Engine
from corrector.dreambooth.checkpoint import exists, read_state, resume_state, write_state
from corrector.errors import UserError
from tests.support.small_sd3 import small_transformer
from tests.support.small_tasks import engine, fine_tune, resume, save, texts

TASKS = (
    fine_tune("guard", 1, steps=14, warmup_steps=4, lr_schedule="linear"),
    fine_tune("prior", 2, steps=9, rank=8, batch_size=3, preservation="prior"),
    fine_tune("mirrored", 3, steps=14, batch_size=2, preservation="none", horizontal_flip=True),
)


def started(steps: int, **options: Any) -> Engine:
    pack = engine(slots=3, **options)
    for task in TASKS:
        pack.admit(task)
    for _ in range(steps):
        pack.step()
    return pack


def curves(pack: Engine) -> dict[str, list[Any]]:
    while pack.active:
        pack.step()
    return {name: pack.history(name) for name in pack.finished}


@pytest.mark.parametrize("report_every", [1, 4])
def test_a_resumed_pack_goes_on_exactly(tmp_path: Path, report_every: int) -> None:
    undisturbed = started(6, report_every=report_every)
    save(undisturbed, tmp_path / "checkpoint")
    resumed = engine(slots=3, report_every=report_every)
    resume(resumed, tmp_path / "checkpoint")
    assert curves(resumed) == curves(undisturbed)
    for task in TASKS:
        expected = undisturbed.release(task.name)
        for path, (down, up) in resumed.release(task.name).weights.items():
            assert torch.equal(down, expected.weights[path][0]) and torch.equal(up, expected.weights[path][1])


def test_resumes_in_a_wider_pack_of_higher_rank_and_other_company(tmp_path: Path) -> None:
    undisturbed = started(6)
    save(undisturbed, tmp_path)
    wider = engine(slots=6, rank=16)
    resume(wider, tmp_path)
    wider.admit(fine_tune("newcomer", 7, steps=5))
    expected, found = curves(undisturbed), curves(wider)
    for task in TASKS:
        for here, there in zip(found[task.name], expected[task.name], strict=True):
            assert here.loss == pytest.approx(there.loss, rel=1e-4)


def test_finished_and_stopped_are_remembered(tmp_path: Path) -> None:
    pack = started(9)
    pack.stop("mirrored")
    save(pack, tmp_path)
    resumed = engine(slots=3)
    resume(resumed, tmp_path)
    assert resumed.finished == ["prior", "mirrored"] and resumed.active == ["guard"]
    assert resumed.release("mirrored").metadata["steps"] == "9"


def test_one_fine_tune_goes_on_exactly_in_another_pack(tmp_path: Path) -> None:
    undisturbed = started(6)
    state = read_state(write_state(undisturbed.state_of("prior"), tmp_path))
    other = engine(slots=2, rank=16)
    other.admit(fine_tune("company", 7, steps=20))
    other.step()
    assert resume_state(other, state, tmp_path) == "prior"
    expected, found = curves(undisturbed)["prior"], curves(other)["prior"]
    assert [report.step for report in found] == list(range(1, 10))
    for here, there in zip(found, expected, strict=True):
        assert here.loss == pytest.approx(there.loss, rel=1e-4)
    with pytest.raises(ValueError, match="no free slot for prior"):
        resume_state(other, state, tmp_path)


def test_what_cannot_go_on_here_leaves_the_pack_as_it_was(tmp_path: Path) -> None:
    state = started(2).state_of("prior")
    pack = engine(slots=3, rank=4)
    pack.admit(fine_tune("company", 7, steps=20))
    with pytest.raises(UserError, match="prior: rank 8 is above 4"):
        resume_state(pack, state, tmp_path)
    with pytest.raises(UserError, match="belongs to another base"):
        resume_state(engine(slots=3, base_revision="other"), state, tmp_path)
    state["run"]["hyperparameters"]["rank"] = "high"
    for damaged in (state, STATE):
        with pytest.raises(UserError, match=r"the checkpoint is damaged: engine\.json lacks"):
            resume_state(pack, damaged, tmp_path)
    assert pack.free_slots == [2, 3] and pack.bank.occupied() == [1] and pack.active == ["company"]


def test_fine_tunes_may_share_tensors(tmp_path: Path) -> None:
    shared, task = texts(3, 5), fine_tune("one", 1)
    pack = engine(slots=1)
    pack.admit(replace(task, prompt=shared[0], guards=shared[1:]))
    resume(engine(slots=1), save(pack, tmp_path))


def test_a_new_checkpoint_takes_the_place_of_the_last(tmp_path: Path) -> None:
    pack = started(1)
    save(pack, tmp_path)
    pack.step()
    save(pack, tmp_path)
    assert sorted(path.suffix for path in (tmp_path / "guard").iterdir()) == [".json", ".safetensors"]
    resumed = engine(slots=3)
    resume(resumed, tmp_path)
    assert len(resumed.history("guard")) == 2


STATE = {"step": 1, "values": torch.arange(4.0), "name": None, "history": [[1, 0.1], [2, 1e-17]]}
"""What a checkpoint holds does not matter to whether it survives."""


def write_and_die(state: dict[str, Any], folder: Path, call: int, before: bool) -> bool:
    """Writes in a process of its own that kills itself at its ``call``-th system call of interest; whether it died."""
    child = os.fork()
    if child == 0:
        count = 0

        def deadly(name: str) -> Any:
            original = getattr(os, name)

            def function(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count == call and before:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = original(*args, **kwargs)
                if count == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return function

        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, deadly(name))
        write_state(state, folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # for a loss of power; a kill loses nothing written
    new = STATE | {"step": 2, "values": torch.arange(4.0) + 1}
    outcomes: list[int] = []
    for call in range(1, 20):
        for before in (True, False):
            folder = write_state(STATE, tmp_path / f"{call}-{before}")
            died = write_and_die(new, folder, call, before)
            state = read_state(folder)
            outcomes.append(state["step"])
            assert torch.equal(state["values"], torch.arange(4.0) + state["step"] - 1)
            assert state["history"] == STATE["history"] and state["name"] is None
            write_state(STATE | {"step": 3}, folder)  # and the next one is not in the way of what was left
            assert read_state(folder)["step"] == 3
            assert len(list(folder.iterdir())) == 2
        if not died:
            break
    assert not died and outcomes[0] == 1 and outcomes[-1] == 2 and outcomes == sorted(outcomes)
    assert len(outcomes) >= 12


def test_a_kill_in_the_first_checkpoint_leaves_none(tmp_path: Path) -> None:
    assert write_and_die(STATE, tmp_path, 3, before=True)
    assert any(tmp_path.iterdir()) and not exists(tmp_path)
    with pytest.raises(UserError, match="no checkpoint here"):
        read_state(tmp_path)


def weights_file(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def flip_a_byte(folder: Path) -> None:
    path = weights_file(folder)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "flipped": flip_a_byte,
    "truncated": lambda folder: weights_file(folder).write_bytes(weights_file(folder).read_bytes()[:-9]),
    "missing": lambda folder: weights_file(folder).unlink(),
    "half": lambda folder: (folder / "engine.json").write_bytes((folder / "engine.json").read_bytes()[:50]),
    "empty": lambda folder: (folder / "engine.json").write_bytes(b""),
    "foreign": lambda folder: (folder / "engine.json").write_text("[1]"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_and_no_engine_takes_it(tmp_path: Path, kind: str) -> None:
    write_state(STATE, tmp_path)
    DAMAGE[kind](tmp_path)
    with pytest.raises(UserError, match=r"the checkpoint is damaged: .*; delete the folder to start"):
        read_state(tmp_path)


def test_the_base_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    write_state(started(1).state_of("guard"), tmp_path)
    size = sum(parameter.numel() * 4 for parameter in small_transformer().parameters())
    assert weights_file(tmp_path).stat().st_size < size
