"""LoRA files that other programs trained come into the registry: drawn, judged where there are exemplars, and reviewed."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking import MlflowClient
from safetensors.torch import save_file
from torch import Tensor

import corrector
from corrector.adapters import Adapter, export_adapter, load_adapter, save_adapter
from corrector.base import resolve_base
from corrector.exemplars.fit import to_image
from corrector.files import file_sha256
from corrector.record.correction_record import CorrectionRecord
from corrector.registry import Reference, fetch
from corrector.registry.__main__ import main
from corrector.registry.comparison import fetch_compared
from corrector.registry.importing import import_adapter, import_entry
from corrector.registry.listing import find_record, find_version
from corrector.registry.restore import restore_record
from tests.support.guides import blocks
from tests.support.kohya_files import trained_by_kohya
from tests.support.lanes import FEW_IMAGES
from tests.support.paths import PROJECT
from tests.support.small_banks import adapter_of
from tests.support.small_sd3 import small_transformer

PROMPT = "a person lying on the grass"
NAME = "lying"
GUARD = "a person sitting on the grass"
SIDE = 16


@pytest.fixture
def say(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """`say(status, *words)`: what a command printed that ended with `status`, on either stream."""
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(status: int, *words: str) -> str:
        ended = main([*words, "--root", str(root)])
        printed = capsys.readouterr()
        assert ended == status, printed
        return printed.out + printed.err

    return run


@pytest.fixture
def kohya(tmp_path: Path) -> Path:
    """A file as kohya's scripts save it: attention, feed-forward layers and modulations."""
    file = tmp_path / "style.safetensors"
    save_file(trained_by_kohya(rank=2, alpha=1.0), file)
    return file


@pytest.fixture(scope="module")
def exemplars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exemplars")
    for number in range(6):
        image = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(number))
        to_image(image).save(folder / f"{number}.png")
    return folder


def test_an_import_is_listed_shown_promoted_fetched_and_drawn_with(
    say: Any, kohya: Path, small_sd3: Path, root: Path, tmp_path: Path, client: MlflowClient
) -> None:
    words = (
        "import",
        str(kohya),
        "--name",
        NAME,
        "--prompt",
        PROMPT,
        "--guards",
        GUARD,
        "--base",
        str(small_sd3),
    )
    told = say(0, *words, "--images", "2")
    assert f"{NAME}/1 imported from style.safetensors (kohya, alpha 1 at rank 2, from alpha tensors)" in told
    assert "it also changes ff.net.0.proj, ff.net.2, ff_context.net.0.proj" in told
    assert "Not judged: it was imported without exemplars" in told
    say(0, *words, "--images", "2")  # the same work is the same version

    listed = say(0, "list")
    assert "not judged, imported" in listed
    shown = say(0, "show", f"{NAME}/1")
    assert file_sha256(kohya) in shown
    assert "version 2 not found" in say(2, "show", f"{NAME}/2")
    refused = say(2, "promote", NAME, "1", "--who", "Ada")
    assert "it was not judged: it was imported without exemplars; it changes ff.net.0.proj" in refused
    promoted = say(0, "promote", NAME, "1", "--who", "Ada", "--why", "looks right")
    assert promoted.splitlines() == [f"{NAME}/1: not judged", f"{NAME}/1 promoted by Ada"]

    version = find_version(Reference(NAME), tracking_uri=None, root=root)
    record = find_record(version, tracking_uri=None, root=root)
    assert record.status == "not judged"
    assert record.entry == {
        "prompt": PROMPT, "name": NAME, "paraphrases": [], "guard_prompts": [GUARD], "hard_negatives": [],
        "class_prompt": None, "owner": None, "priority": 0,
    }  # fmt: skip
    assert "hyperparameters" not in record.lineage
    one, _ = fetch_compared((Reference(NAME), Reference(NAME)), tracking_uri=None, root=root)
    assert one.sheet is not None
    artifacts = {item.path: item for item in client.list_artifacts(version.run_id)}
    assert {"review.html", "before_after.png", "images.zip"} <= artifacts.keys()
    page = Path(client.download_artifacts(version.run_id, "review.html")).read_text()
    assert "imported from style.safetensors" in page
    assert page.count('<img src="data:image/') >= 8
    card = Path(client.download_artifacts(version.run_id, "model/README.md")).read_text()
    assert "imported from style.safetensors" in card
    assert "Not judged" in card
    restored = restore_record(version, tmp_path / "restored", tracking_uri=None, root=root)
    assert len(CorrectionRecord.images(restored).guards[0][1]) == 2

    folder = fetch(NAME, "champion", tmp_path / "fetched", tracking_uri=None, root=root)
    base = corrector.load_base(str(small_sd3))
    found = base.sample(PROMPT, adapter=load_adapter(folder), num_inference_steps=2)
    expected = base.sample(PROMPT, adapter=load_adapter(kohya), num_inference_steps=2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(found, base.sample(PROMPT, num_inference_steps=2), atol=1e-2)


def test_an_import_with_exemplars_is_judged_as_a_correction_of_ours(
    exemplars: Path, small_sd3: Path, root: Path, tmp_path: Path
) -> None:
    base = corrector.Base(resolve_base(str(small_sd3)))
    prompt = corrector.FailingPrompt(
        prompt=PROMPT,
        name=NAME,
        exemplars=str(exemplars),
        guard_prompts=(GUARD,),
        hyperparameters=corrector.HyperParameters(rank=2, steps=4, batch_size=2, learning_rate=1e-2),
    )
    ours = corrector.correct(prompt, base, evaluation=FEW_IMAGES, progress=False)
    file = export_adapter(ours.adapter, tmp_path / "theirs.safetensors", "comfyui")

    entry = import_entry(PROMPT, name=NAME, guards=(GUARD,), exemplars=str(exemplars))
    theirs = import_adapter(file, entry, base, evaluation=FEW_IMAGES, tracking_uri=None, root=root)

    assert theirs.record.scorecard == ours.scorecard
    assert theirs.record.status == ours.record.status
    assert theirs.record.exemplars == ours.record.exemplars
    assert any(note.startswith("the exemplars are doubtful: number: 6 images") for note in theirs.notes)
    assert theirs.version.version == "1"
    version = find_version(Reference(NAME, "1"), tracking_uri=None, root=root)
    assert version.tags["imported"].startswith("imported from theirs.safetensors (kohya, alpha 2 at rank 2")
    assert version.scores.keys() == {"fid_efficientnet_lite0", "fid_opennsfw"}


def test_what_an_endpoint_applies_and_a_file_lacks_is_zero(
    small_sd3: Path, root: Path, tmp_path: Path, say: Any
) -> None:
    adapter = adapter_of(small_transformer(), ("transformer_blocks.0.attn.to_q",), rank=2, alpha=2.0)
    file = save_adapter(adapter, tmp_path / "one layer")
    guards = tmp_path / "guards.txt"
    guards.write_text(f"\ufeff{GUARD}\n\n  a dog lying on the grass \n", encoding="utf-8")
    words = ("import", str(file), "--prompt", PROMPT, "--guard-file", str(guards), "--base", str(small_sd3))

    told = say(0, *words, "--images", "0")

    assert "22 of the attention's layers are not in the file" in told
    version = find_version(Reference("a-person-lying-on-the-grass", "1"), tracking_uri=None, root=root)
    record = find_record(version, tracking_uri=None, root=root)
    assert record.entry["guard_prompts"] == [GUARD, "a dog lying on the grass"]
    assert (record.guards, record.seeds) == ((), ())
    folder = fetch(version.name, "1", tmp_path / "fetched", tracking_uri=None, root=root)
    weights = load_adapter(folder).weights
    assert len(weights) == 23
    assert [path for path, (_, up) in weights.items() if up.any()] == ["transformer_blocks.0.attn.to_q"]


def lora(path: str, inputs: int, outputs: int) -> dict[str, Tensor]:
    return {
        f"transformer.{path}.lora_A.weight": torch.ones(2, inputs),
        f"transformer.{path}.lora_B.weight": torch.ones(outputs, 2),
    }


@pytest.mark.parametrize(
    ("tensors", "names"),
    [
        (
            lora("transformer_blocks.0.attn.to_q", 3072, 3072),
            "to_q has 3072 inputs and 3072 outputs, in .* 32 and 32; layers 3072 wide are those of FLUX: ",
        ),
        (lora("transformer_blocks.0.attn.to_q", 1536, 1536), "those of Stable Diffusion 3 medium or 3.5 medium"),
        (lora("transformer_blocks.0.ff.net.2", 128, 64), "ff.net.2 has 128 inputs and 64 outputs, .* with --base"),
        (
            lora("transformer_blocks.23.attn.to_q", 32, 32),
            r"changes transformer_blocks\.23\.attn\.to_q, which .* does not have \(3 blocks of width 32\)",
        ),
        (lora("transformer_blocks.0.attn2.to_q", 32, 32), r"attn2\.to_q, which .* does not have"),
    ],
)  # fmt: skip
def test_a_file_for_another_base_is_refused_and_nothing_is_registered(
    say: Any, small_sd3: Path, tmp_path: Path, tensors: dict[str, Tensor], names: str
) -> None:
    save_file(tensors, tmp_path / "other.safetensors")
    told = say(2, "import", str(tmp_path / "other.safetensors"), "--prompt", PROMPT, "--base", str(small_sd3))
    assert re.match(rf".*other\.safetensors: .*{names}", told)
    assert PROMPT.replace(" ", "-") not in say(0, "list")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--prompt", " "), "prompt: "),
        (("--prompt", PROMPT, "--name", "No Name"), "name: "),
        (("--prompt", PROMPT, "--guards", PROMPT), "a guard prompt must not change"),
        (("--prompt", PROMPT, "--hard-negatives", PROMPT), "a hard negative must not be corrected"),
        (("--prompt", PROMPT, "--guard-file", "nowhere.txt"), "one guard prompt a line"),
        (("--prompt", PROMPT, "--alpha", "-1"), "alpha is -1.0"),
        (("--prompt", PROMPT, "--base", "nowhere"), "nowhere"),
        (("--prompt", PROMPT, "--exemplars", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_named(
    say: Any, kohya: Path, small_sd3: Path, words: tuple[str, ...], names: str
) -> None:
    base = () if "--base" in words else ("--base", str(small_sd3))
    assert names in say(2, "import", str(kohya), *words, *base)


def test_a_file_of_ours_for_another_base_is_refused(say: Any, small_sd3: Path, tmp_path: Path) -> None:
    adapter = adapter_of(small_transformer(), ("attn.to_q",), rank=2, alpha=2.0)
    file = save_adapter(Adapter(2, 2.0, adapter.weights, base_revision="abc"), tmp_path / "ours")
    told = say(2, "import", str(file), "--prompt", PROMPT, "--base", str(small_sd3))
    assert "was trained on the base revision abc" in told


def test_the_guides_command_imports_a_file_for_the_embedded_base(
    say: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    embedded = corrector.load_base("embedded")
    adapter = adapter_of(embedded.transformer, ("attn.to_q", "attn.to_out.0"), rank=4, alpha=2.0)
    export_adapter(adapter, tmp_path / "lying.safetensors", "comfyui")
    [command] = [
        command
        for block in blocks(PROJECT / "corrector/README.md")
        for command in block.commands
        if "registry import" in command
    ]
    words = shlex.split(command.replace("jobs/examples", str(PROJECT / "jobs/examples")))[3:]

    told = say(0, *words, "--images", "2")

    assert "person-lying/1 imported from lying.safetensors (kohya, alpha 4 at rank 4" in told
    assert "the gate did not pass it" in told
    assert "rejected, imported" in say(0, "list")
