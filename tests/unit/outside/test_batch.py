"""Batch files that other people write: spreadsheets' tables, exports of data frames, texts copied from elsewhere."""

import io
import json
import shutil
import unicodedata
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import jsonschema
import pytest
import yaml

from corrector.errors import UserError
from corrector.prompts import FailingPrompt, json_schema, load_batch
from corrector.prompts.__main__ import main
from corrector.prompts.prompt_list import read_prompt_list
from corrector.settings import Settings
from jobs.inputs.batch import check_batch
from tests.support.batch_files import mistakes, only, write

FILES = Path(__file__).parent / "batch"
EX = "ex/cat-running-on-the-snow"
CAT = "a cat running on the snow"


def loaded(folder: Path, name: str, settings: Settings) -> FailingPrompt:
    """The one prompt of a copy of this file."""
    batch = load_batch(Path(shutil.copy(FILES / name, folder)), settings=settings)
    assert batch.base == "embedded"
    (prompt,) = batch.prompts
    return prompt


@pytest.mark.parametrize(
    ("name", "prompt", "hyperparameters"),
    [
        ("json-floats.json", CAT, {"rank": 8, "steps": 300, "seed": 1}),
        ("yaml-floats.yaml", CAT, {"rank": 8, "steps": 300}),
        ("nulls.jsonl", CAT, {"rank": 8, "steps": 300, "seed": 0, "alpha": None}),
        ("empty-keys.yaml", CAT, {"rank": 16}),
        ("excel-sep.csv", CAT, {}),
        ("trailing-semicolons.csv", CAT, {}),
        ("prompts.tsv", "a cat", {}),
    ],
)
def test_a_file_of_another_tool_is_read_as_it_is_meant(
    folder: Path, settings: Settings, name: str, prompt: str, hyperparameters: dict[str, object]
) -> None:
    found = loaded(folder, name, settings)

    assert (found.prompt, found.name) == (prompt, prompt.replace(" ", "-"))
    own = found.hyperparameters
    assert {key: getattr(own, key) for key in hyperparameters} == hyperparameters
    assert own.preservation == "none"
    assert (found.paraphrases, found.guard_prompts, found.owner, found.priority) == ((), (), None, 0)


@pytest.mark.parametrize(
    ("name", "line", "field", "message"),
    [
        ("nfc-nfd-named.yaml", 7, "prompt", "is also the prompt in line 4; a prompt has one correction"),
        ("zero-width.yaml", 7, "prompt", "is also the prompt in line 4; a prompt has one correction"),
        ("backslash.yaml", 5, "exemplars", f'; write / between folders: "{EX}"'),
    ],
)
def test_what_is_wrong_in_a_file_of_another_tool_is_said(
    folder: Path, settings: Settings, name: str, line: int, field: str, message: str
) -> None:
    error = only(mistakes(folder, name, (FILES / name).read_bytes(), settings))

    assert (error.line, error.field) == (line, field)
    assert error.message.endswith(message)


@pytest.mark.parametrize("name", ["json-floats.json", "empty-keys.yaml"])
def test_the_schema_for_editors_accepts_what_is_read(name: str) -> None:
    jsonschema.validate(yaml.safe_load((FILES / name).read_text(encoding="utf-8")), json_schema())


ROWS = f"prompt;exemplars;preservation\r\n{CAT};{EX};none\r\n"
TABLES = {
    "separator.csv": f"sep=;\r\n{ROWS}".encode(),
    "quoted-separator.csv": f'"sep=;"\r\n{ROWS}'.encode("utf-8-sig"),
    "upper-case-separator.csv": f"SEP=;\r\n{ROWS}".encode(),
    "commas-in-the-header.csv": b"sep=;\n"
    + ROWS.replace(CAT, '"a, cat"').replace("prompt", '"prompt"', 1).encode(),
    "tab-separator.csv": f"sep=\t\n{ROWS}".replace(";", "\t").encode(),
    "bar-separator.csv": f"sep=|\n{ROWS}".replace(";", "|").encode(),
    "unicode-text.tsv": ROWS.replace(";", "\t").encode("utf-16"),
    "big-endian.tsv": b"\xfe\xff" + ROWS.replace(";", "\t").encode("utf-16-be"),
    "one-empty-column.csv": f"prompt;;exemplars;preservation\n{CAT};;{EX};none\n".encode(),
    "longer-rows.csv": ROWS.replace("none\r\n", "none;;;;\r\n").encode(),
    "lines.ndjson": json.dumps({"prompt": CAT, "exemplars": EX, "preservation": "none"}).encode("utf-16"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_spreadsheets_are_read(folder: Path, settings: Settings, name: str) -> None:
    (prompt,) = load_batch(write(folder, name, TABLES[name]), settings=settings).prompts

    assert prompt.prompt in (CAT, "a, cat")
    assert (prompt.exemplars, prompt.hyperparameters.preservation) == (EX, "none")


@pytest.mark.parametrize(
    ("text", "line", "field", "message"),
    [
        (f"sep=;\n{ROWS.replace(CAT, '')}", 3, "prompt", "missing in prompts[0]"),
        (f";{ROWS.replace(CAT, f'0;{CAT}')}", 1, "", 'column 1 has no name, and "0" in it'),
        (ROWS.replace("none", "none;;x"), 2, "", "5 cells, and the header has 3"),
        (
            ROWS.replace("none", "none;8").replace("ion", "ion;rank", 1).replace(";8", ";8,5"),
            2,
            "rank",
            "write 8.5",
        ),
        (
            ROWS.replace("none", "none;0,002").replace("ion", "ion;learning_rate", 1),
            2,
            "learning_rate",
            'found "0,002"; write 0.002, with a point',
        ),
    ],
)
def test_what_a_spreadsheet_leaves_unclear_is_refused(
    folder: Path, settings: Settings, text: str, line: int, field: str, message: str
) -> None:
    error = only(mistakes(folder, "batch.csv", text, settings))

    assert (error.line, error.field) == (line, field)
    assert message in error.message


def test_a_list_of_prompts_for_a_diagnosis_comes_from_a_spreadsheet_too(folder: Path) -> None:
    text = "sep=;\nprompt;;\na cat, lying;;\na dog\u200b;;\n"
    assert read_prompt_list(write(folder, "list.csv", text)) == ["a cat, lying", "a dog"]
    assert read_prompt_list(write(folder, "list.tsv", "prompt\na cat, lying\n".encode("utf-16"))) == [
        "a cat, lying"
    ]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (f"{CAT}.", "punctuation and the form of letters make no other prompt"),
        ("a cat, running on the snow", "punctuation and the form of letters make no other prompt"),
        ("a ｃａｔ running on the snow", "punctuation and the form of letters make no other prompt"),
        ("a cat\u00a0running on the snow", "a prompt has one correction"),
        ("a c\u00adat running on the snow", "a prompt has one correction"),
        ("\ufeffA cat  running on the snow", "a prompt has one correction"),
    ],
)
@pytest.mark.parametrize("key", ["prompt", "paraphrases"])
def test_another_spelling_is_no_other_prompt(
    folder: Path, settings: Settings, other: str, message: str, key: str
) -> None:
    first = {"prompt": CAT, "exemplars": EX, "preservation": "none", "name": "one"}
    second = {
        **first,
        "prompt": "a dog",
        "name": "two",
        **({key: other} if key == "prompt" else {key: [other]}),
    }

    error = only(mistakes(folder, "batch.jsonl", f"{json.dumps(first)}\n{json.dumps(second)}", settings))

    assert (error.line, error.field) == (2, "prompt" if key == "prompt" else "paraphrases[0]")
    assert "is also the prompt in line 1" in error.message
    assert message in error.message


def test_invisible_characters_are_left_out_of_texts_and_noted_with_name_and_place(
    folder: Path, settings: Settings
) -> None:
    text = (
        f"prompts:\n  - prompt: {CAT}\u200b\n    exemplars: {EX}\n    owner: \u202epark team\n"
        "    guard_prompts:\n      - a d\u00adog\n      - \U0001f469\u200d\U0001f373 cooking\n"
    )

    batch = load_batch(write(folder, "batch.yaml", text), settings=settings)

    (prompt,) = batch.prompts
    assert (prompt.prompt, prompt.owner) == (CAT, "park team")
    assert prompt.guard_prompts == ("a dog", "\U0001f469\u200d\U0001f373 cooking")
    file = folder / "batch.yaml"
    assert batch.notes == (
        f"{file}:2: prompt: left out U+200B ZERO WIDTH SPACE, which nobody sees",
        f"{file}:6: guard_prompts: left out U+00AD SOFT HYPHEN, which nobody sees",
        f"{file}:4: owner: left out U+202E RIGHT-TO-LEFT OVERRIDE, which nobody sees",
    )


def test_a_text_of_invisible_characters_is_empty(folder: Path, settings: Settings) -> None:
    text = json.dumps({"prompt": "\u200b \ufeff", "exemplars": EX, "preservation": "none"})

    assert "empty" in only(mistakes(folder, "batch.jsonl", text, settings)).message


def test_a_folder_in_another_unicode_form_is_told_from_a_missing_one(
    folder: Path, settings: Settings
) -> None:
    (folder / unicodedata.normalize("NFD", "café")).mkdir()
    text = "prompts:\n  - {prompt: a, exemplars: café, preservation: none}\n"

    assert "another Unicode form" in only(mistakes(folder, "batch.yaml", text, settings)).message


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"prompt": None, "exemplars": EX}, "missing in prompts[0]; write the prompt"),
        ({"prompt": "a", "exemplars": None}, "missing in prompts[0]; name a folder"),
        ({"prompt": "a", "exemplars": EX, "paraphrases": ["b", None]}, "expected text, found nothing"),
    ],
)
def test_what_is_needed_cannot_be_null(
    folder: Path, settings: Settings, entry: dict[str, object], message: str
) -> None:
    text = json.dumps({"preservation": "none", **entry})

    assert only(mistakes(folder, "batch.jsonl", text, settings)).message.startswith(message)


def test_a_null_of_a_prompt_leaves_the_default(folder: Path, settings: Settings) -> None:
    text = (
        "defaults: {rank: 4, alpha: 2}\n"
        f"prompts:\n  - {{prompt: a, exemplars: {EX}, preservation: none, rank: ~, alpha: }}\n"
    )

    own = load_batch(write(folder, "batch.yaml", text), settings=settings).prompts[0].hyperparameters

    assert (own.rank, own.alpha) == (4, 2.0)


def test_an_unknown_key_is_reported_without_a_value_too(folder: Path, settings: Settings) -> None:
    text = f"prompts:\n  - prompt: a\n    exemplars: {EX}\n    preservation: none\n    gaurd_prompts:\n"

    assert 'did you mean "guard_prompts"' in only(mistakes(folder, "batch.yaml", text, settings)).message


def spoil_exemplars(folder: Path, _: Path) -> None:
    for path in (folder / EX).iterdir():
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")


def leave_one_exemplar(folder: Path, _: Path) -> None:
    for path in sorted((folder / EX).iterdir())[1:]:
        path.unlink()


def link_exemplars(folder: Path, _: Path) -> None:
    (folder / EX).rename(folder / "blobs")
    (folder / EX).mkdir()
    for path in (folder / "blobs").iterdir():
        (folder / EX / path.name).symlink_to(path)


def lose_weights(_: Path, base: Path) -> None:
    (base / "text_encoder_2" / "model.safetensors").unlink()


def cut_off_weights(_: Path, base: Path) -> None:
    path = base / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def configure_otherwise(_: Path, base: Path) -> None:
    path = base / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_layers": 4}))


def lose_a_tokenizer(_: Path, base: Path) -> None:
    shutil.rmtree(base / "tokenizer")


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_exemplars,
        leave_one_exemplar,
        link_exemplars,
        lose_weights,
        cut_off_weights,
        configure_otherwise,
        lose_a_tokenizer,
        None,
    ],
)
def test_check_refuses_what_the_job_refuses_and_nothing_else(
    folder: Path, tmp_path: Path, small_sd3: Path, monkeypatch: pytest.MonkeyPatch, spoil: object
) -> None:
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    base = Path(shutil.copytree(small_sd3, tmp_path / "base"))
    path = write(
        folder,
        "batch.json",
        json.dumps(
            {
                "base": str(base),
                "prompts": [{"prompt": CAT, "exemplars": EX, "preservation": "none"}],
            }
        ),
    )
    if callable(spoil):
        spoil(folder, base)
    refusal = ""
    try:
        check_batch(path, storage=tmp_path / "runs")
    except UserError as error:
        refusal = str(error)
    printed, told = io.StringIO(), io.StringIO()
    with redirect_stdout(printed), redirect_stderr(told):
        status = main(["check", str(path)])

    linked_exemplars_are_allowed = spoil is link_exemplars and not refusal
    assert bool(refusal) == (spoil is not None) or linked_exemplars_are_allowed
    assert status == (2 if refusal else 0)
    assert told.getvalue() == (f"{refusal}\n{path}: 1 mistake\n" if refusal else "")
    assert ("12 + 12 exemplars" in printed.getvalue()) == (not refusal)
