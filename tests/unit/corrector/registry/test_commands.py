"""The commands, as they are typed: what they print, what they change, and how they end."""

import os
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from corrector.adapters import load_adapter
from corrector.files import file_sha256
from corrector.record.correction_record import WEIGHTS_FILE
from corrector.registry.__main__ import main
from corrector.registry.listing import list_models
from tests.support.registering import NAME, Registering

HOSTILE = '<script>alert("x")</script>[red]'


@pytest.fixture
def say(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """`say(status, *words)`: what a command printed that ended with `status`, on either stream."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(status: int, *words: str) -> str:
        assert main([*words, "--root", str(root)]) == status
        printed = capsys.readouterr()
        return printed.out + printed.err

    return run


def test_a_review_from_the_list_to_the_roll_back(
    registered: Registering, say: Any, client: MlflowClient
) -> None:
    for seed in (1, 2):
        registered(seed)
        say(0, "promote", NAME, "--who", "Ada")
    listed = say(0, "list")
    assert NAME in listed
    assert "corrected (improved)" in listed
    assert "champion → 2, previous → 1" in listed
    assert "-80 [-111.4, -51.8], n = 2 (efficientnet_lite0)" in listed
    assert "work-2" in say(0, "show", f"{NAME}@champion")
    told = say(0, "rollback", NAME, "--why", "third legs", "--who", "Bob")
    assert told == f"{NAME}/1 rolled back by Bob (before: 2)\n"
    history = say(0, "history", NAME)
    assert [word in history for word in ("Ada", "Bob", "third legs", "rolled back")] == [True] * 4
    assert "rolled back" in say(0, "show", NAME)
    assert str(client.get_model_version_by_alias(NAME, "champion").version) == "1"
    again = say(0, "promote", f"{NAME}/2", "--why", "they were right", "--who", "Ada")
    assert again.endswith(f"\n{NAME}/2 promoted by Ada (before: 1)\n")
    assert f"{NAME}/1 rejected by Bob" in say(0, "reject", f"{NAME}/1", "--why", "ugly", "--who", "Bob")


def test_a_promotion_says_what_the_verdict_is_and_what_it_cannot_know(
    registered: Registering, say: Any
) -> None:
    registered.all(1, (2, "rejected"))
    grade, unknown, *_, promoted = say(0, "promote", NAME, "--who", "Ada").splitlines()
    assert grade == (f"{NAME}/1: improved: nearer to the exemplars; how many images are right is not known")
    assert unknown.startswith("  not known: how many images are right: no judge of images")
    assert promoted == f"{NAME}/1 promoted by Ada"
    shown = say(0, "show", NAME)
    assert "corrected (improved)" in shown
    assert "rejected (" not in shown
    told = say(0, "promote", f"{NAME}/2", "--why", "today", "--who", "Ada").splitlines()
    assert told[0] == f"{NAME}/2: the gate did not pass it"


def test_who_gets_an_adapter_is_shown_and_changed(
    registered: Registering, say: Any, client: MlflowClient
) -> None:
    registered.all(1, 2)
    assert say(0, "traffic", NAME) == f"{NAME}: live, challenger none\n"
    told = say(0, "traffic", NAME, "--challenger", "2", "--share", "0.1")
    assert told == f"{NAME}: live, challenger 2, which 10% of its users get\n"
    assert str(client.get_model_version_by_alias(NAME, "challenger").version) == "2"
    assert client.get_registered_model(NAME).tags["serving.challenger_share"] == "0.1"
    told = say(0, "traffic", NAME, "--challenger", "none", "--mode", "shadow")
    assert told == f"{NAME}: shadow, challenger none\n"
    assert "expected a number from 0 to 1" in say(2, "traffic", NAME, "--share", "10")
    assert "version 7 not found" in say(2, "traffic", NAME, "--challenger", "7")
    say(0, "reject", f"{NAME}/2", "--why", "ugly")
    assert "a reviewer rejected it" in say(2, "traffic", NAME, "--challenger", "2")
    assert "nobody: not found" in say(2, "traffic", "nobody", "--mode", "live")
    assert say(0, "traffic", NAME) == f"{NAME}: shadow, challenger none\n"


def test_the_registry_may_be_named_before_the_command_and_after_it(
    registered: Registering,
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    registered(1)
    for words in (["--root", str(root), "list"], ["list", "--root", str(root)]):
        assert main(words) == 0
        assert NAME in capsys.readouterr().out
    assert main(["--root", str(tmp_path / "elsewhere"), "list"]) == 2


def test_mistakes_end_with_status_2_and_say_what_to_do(registered: Registering, say: Any) -> None:
    registered(1, "rejected")
    assert "--why" in say(2, "promote", f"{NAME}/1", "--who", "Ada")
    assert "it has version 1" in say(2, "show", f"{NAME}/9")
    assert "not found" in say(2, "history", "unheard-of")
    assert "which version" in say(2, "reject", NAME, "--why", "x", "--who", "Ada")
    assert "no name of a registered adapter" in say(2, "show", "../../etc/passwd")
    assert "name the version once" in say(2, "promote", f"{NAME}/1", "1", "--who", "Ada")
    assert "expected 1 to 1000" in say(2, "list", "--limit", "0")


def test_a_part_of_a_name_finds_it_and_a_page_tells_that_there_is_more(
    registered: Registering, say: Any, root: Path
) -> None:
    registered(1)
    registered(2, name="a-robot")
    assert "a-robot" in say(0, "list", "ROBOT")
    assert NAME not in say(0, "list", "ROBOT")
    assert "more with --limit" in say(0, "list", "--limit", "1")
    first = list_models(tracking_uri=None, root=root, limit=1)
    second = list_models(tracking_uri=None, root=root, limit=1, token=first.token)
    assert {first.models[0].name, second.models[0].name} == {NAME, "a-robot"}
    assert second.token is None
    assert "no name" in say(2, "list", "x' OR 1=1")


def test_two_versions_side_by_side(registered: Registering, say: Any, tmp_path: Path) -> None:
    registered(1)
    registered(2, "rejected", prompt=HOSTILE)
    page = tmp_path / "diff.html"
    printed = say(0, "diff", f"{NAME}/1", f"{NAME}/2", "--out", str(page))
    assert "gate" in printed
    assert "not passed" in printed
    assert "SSIM" not in printed, "what is the same in both was not asked for"
    assert "SSIM" in say(0, "diff", f"{NAME}/1", f"{NAME}/2", "--all")
    html = page.read_text()
    assert html.count("data:image/png;base64,") == 2
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    missing = tmp_path / "nowhere" / "diff.html"
    assert "cannot be written" in say(2, "diff", f"{NAME}/1", f"{NAME}/2", "--out", str(missing))


def test_hostile_tags_are_shown_as_text(registered: Registering, say: Any, client: MlflowClient) -> None:
    registered(1, prompt=HOSTILE)
    client.set_model_version_tag(NAME, "1", "scores", HOSTILE)
    client.set_registered_model_alias(NAME, "red", "1")
    assert HOSTILE in say(0, "list")
    assert HOSTILE in say(0, "show", f"{NAME}@red")


def test_hostile_tags_reach_no_page_as_markup(
    registered: Registering, say: Any, client: MlflowClient, tmp_path: Path
) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'"
    for seed, name in enumerate(("hostile-a", "hostile-b")):
        registered(seed, name=name, prompt=hostile, entry={"owner": hostile + name})
        for tag in ("prompt", "base", "review.decision", "review.why", f"own {name}"):
            client.set_model_version_tag(name, "1", tag, hostile + name)
    say(0, "diff", "hostile-a/1", "hostile-b/1", "--out", str(tmp_path / "diff.html"))
    page = (tmp_path / "diff.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page and "<img src=x" not in page


@pytest.mark.parametrize(("to", "file"), [("diffusers", ""), ("peft", ""), ("comfyui", ".safetensors")])
def test_an_export_loads_again(registered: Registering, say: Any, tmp_path: Path, to: str, file: str) -> None:
    version = registered(1)
    destination = tmp_path / f"exported{file}"
    reference = f"{NAME}@candidate"
    assert say(0, "export", reference, str(destination), "--format", to) == f"{destination}\n"
    original = load_adapter(tmp_path / "record-1" / "adapter")
    exported = load_adapter(destination)
    assert exported.weights.keys() == original.weights.keys()
    if to == "diffusers":
        assert file_sha256(destination / WEIGHTS_FILE) == version.sha256
    assert "already" in say(2, "export", reference, str(destination), "--format", to)


def test_verify_fails_when_one_version_is_damaged(registered: Registering, say: Any, root: Path) -> None:
    registered.all(1, 2)
    assert "2 versions" in say(0, "verify")
    kept = next(root.rglob(f"artifacts/**/{WEIGHTS_FILE}"))
    os.truncate(kept, 100)
    assert "SHA-256" in say(1, "verify", NAME)


def test_gc_shows_before_it_removes(registered: Registering, say: Any, root: Path) -> None:
    registered(1)
    (root / "artifacts" / "0123").mkdir()
    assert say(0, "gc") == "0 found; nothing was removed, --delete does\n"
    assert "0123" in say(0, "gc", "--older-than", "0m")
    assert (root / "artifacts" / "0123").exists()
    assert "1 removed" in say(0, "gc", "--older-than", "0m", "--delete")
    assert not (root / "artifacts" / "0123").exists()
