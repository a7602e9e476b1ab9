"""A mistake's message says what was expected, what was probably meant, and what to write instead."""

from pathlib import Path

import pytest

from corrector.prompts import BatchErrors, load_batch
from corrector.settings import Settings
from tests.support.batch_files import ENTRY, mistakes, only


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('rank: "8"', 'expected a whole number from 1 to 1024, found "8"; write it without quotes'),
        ("rank: 8.5", "expected a whole number from 1 to 1024, found 8.5"),
        ("rank: true", "expected a whole number from 1 to 1024, found true"),
        ("paraphrases: [null]", "expected text, found nothing"),
        ("rank: [8]", "expected a whole number from 1 to 1024, found a list"),
        ("rank: {r: 8}", "expected a whole number from 1 to 1024, found a mapping"),
        ("learning_rate: 0", "expected a number above 0 and at most 1, found 0"),
        ("learning_rate: .inf", "expected a number above 0 and at most 1, found inf"),
        ("learning_rate: true", "expected a number above 0 and at most 1, found true"),
        ("beta1: 1", "expected a number at least 0 and below 1, found 1"),
        ("seed: 4294967296", "expected a whole number from 0 to 4294967295, found 4294967296"),
        ("resolution: 500", "expected a multiple of 16 from 32 to 4096, found 500"),
        ("horizontal_flip: yes", 'expected true or false, found "yes"'),
        ("horizontal_flip: 1", "expected true or false, found 1"),
        ('horizontal_flip: "true"', 'expected true or false, found "true"; write it without quotes'),
        (
            "preservation: Guards",
            'expected one of "guard", "prior", "none", found "Guards"; did you mean "guard"?',
        ),
        ("owner: 7", "expected text, found 7; put it in quotes"),
        ("owner: '  '", "empty; write something, or remove the key"),
        ("paraphrases: a man", 'expected a list of texts, found "a man"; write ["a man"]'),
        ("name: Lying Person", 'found "Lying Person"; for example "lying-person"'),
        ('owner: "a\\nb"', "holds a line break or control character (U+000A); write it on one line"),
        (f"owner: {'x' * 201}", "expected at most 200 characters, found 201"),
        (
            f"paraphrases: [{', '.join(f'man {n}' for n in range(201))}]",
            "expected at most 200 texts, found 201",
        ),
    ],
)
def test_a_wrong_value_is_told_what_was_expected(
    folder: Path, settings: Settings, line: str, message: str
) -> None:
    errors = mistakes(folder, "batch.yaml", f"prompts:\n{ENTRY}    {line}\n", settings)

    assert errors[0].line == 5
    assert any(error.message.endswith(message) for error in errors), errors


@pytest.mark.parametrize(
    ("scope", "key", "message"),
    [
        ("", "prmpts", 'did you mean "prompts"?'),
        ("", "learning_rate", "it belongs under defaults or to a prompt"),
        ("", "zebra", "expected one of $schema, base, defaults, evaluation, gate, prompts"),
        ("defaults", "lr", 'did you mean "learning_rate"?'),
        ("defaults", "Learning-Rate", 'did you mean "learning_rate"?'),
        ("defaults", "owner", "it belongs to a prompt"),
        ("evaluation", "image", 'did you mean "images"?'),
        ("gate", "bootstrap", "it belongs under evaluation"),
        ("prompts", "evaluation", "it belongs to the whole batch"),
        ("prompts", "max_train_steps", 'did you mean "steps"?'),
        ("prompts", "instance_data_dir", 'did you mean "exemplars"?'),
        ("prompts", "images", 'did you mean "exemplars"? This key belongs under evaluation'),
        ("prompts", "hyperparameters", "beside the prompt, or under defaults"),
        ("prompts", "zebra", "remove it (`python -m corrector.prompts schema` lists all keys)"),
    ],
)
def test_an_unknown_key_is_told_what_was_probably_meant(
    folder: Path, settings: Settings, scope: str, key: str, message: str
) -> None:
    top = {"": f"{key}: x\n", "prompts": ""}.get(scope, f"{scope}: {{{key}: x}}\n")
    entry = ENTRY + (f"    {key}: x\n" if scope == "prompts" else "")

    error = only(mistakes(folder, "batch.yaml", f"{top}prompts:\n{entry}", settings))

    assert error.message.startswith("unknown key")
    assert message in error.message


@pytest.mark.parametrize(
    ("lines", "field", "remedy"),
    [
        ("", "guard_prompts", "set preservation: none"),
        ("guard_prompts: []", "guard_prompts", "set preservation: none"),
        ("preservation: prior", "class_prompt", "preservation: guard or none"),
    ],
)
def test_preservation_needs_what_it_preserves(
    folder: Path, settings: Settings, lines: str, field: str, remedy: str
) -> None:
    text = f"prompts:\n  - prompt: a person lying\n    exemplars: exemplars/lying\n    {lines}\n"

    error = only(mistakes(folder, "batch.yaml", text, settings))

    assert error.field == field
    assert error.message.startswith("missing")
    assert remedy in error.message


def test_a_text_is_corrected_by_one_prompt_only(folder: Path, settings: Settings) -> None:
    entry = "  - {{prompt: {}, exemplars: exemplars/lying, preservation: none, paraphrases: [{}, {}]}}\n"
    text = (
        "prompts:\n"
        + entry.format("a man lying", "a man", "A  MAN")
        + entry.format("a MAN", "a man lying", "b")
    )

    errors = mistakes(folder, "batch.yaml", text, settings)

    assert [(error.line, error.field, error.message) for error in errors] == [
        (2, "paraphrases[1]", '"A  MAN" is also paraphrases[0]; remove one'),
        (3, "prompt", '"a MAN" is also a paraphrase in line 2; a prompt has one correction'),
        (3, "paraphrases[0]", '"a man lying" is also the prompt in line 2; a prompt has one correction'),
    ]


def test_prompts_whose_names_would_be_the_same_need_names(folder: Path, settings: Settings) -> None:
    entry = "  - {{prompt: {}, exemplars: exemplars/lying, preservation: none}}\n"
    text = "prompts:\n" + entry.format("a résumé") + entry.format("a resume")

    error = only(mistakes(folder, "batch.yaml", text, settings))

    assert (error.line, error.field) == (3, "name")
    assert (
        error.message
        == '"a-resume" is also the name of the prompt in line 2; give one of them a name of its own'
    )


@pytest.mark.parametrize(
    ("name", "text", "line", "message"),
    [
        ("batch.yaml", "", 1, "the file is empty"),
        ("batch.csv", " \n\n", 1, "the file is empty"),
        ("batch.yaml", "# later\n", 1, "nothing but comments"),
        ("batch.yaml", "base: embedded\n", 1, "missing; list the failing prompts here"),
        ("batch.yaml", "base: embedded\nprompts: []\n", 2, "no prompts"),
        ("batch.csv", "prompt,exemplars\n", 1, "no prompts"),
        ("batch.jsonl", '{"base": "embedded"}\n', 1, "no prompts"),
        ("batch.yaml", "- prompt: a\n", 1, 'under "prompts", found a list'),
        ("batch.json", "[]", 1, 'under "prompts", found a list'),
        ("batch.yaml", b"prompts:\n  - prompt: caf\xe9\n", 2, "not UTF-8: byte 0xe9"),
        (
            "batch.csv",
            "prompt\ncafé\n".encode("cp1252"),
            2,
            "0xe9; save the file as UTF-8 (in Excel: CSV UTF-8)",
        ),
        ("batch.csv", b"\xff\xfep\x00r", 1, "not UTF-16, although it begins so"),
        ("batch.csv", b"PK\x03\x04...", 1, "a zip archive or a spreadsheet"),
        (
            "batch.txt",
            "prompts: []",
            None,
            "must end in one of .yaml, .yml, .json, .jsonl, .ndjson, .csv, .tsv",
        ),
        ("batch.yaml", "prompts:\n\t- a\n", 2, "indent with spaces"),
        ("batch.yaml", "prompts:\n  - prompt: a sign: stop\n", 2, "quote the text"),
        ("batch.yaml", "prompts:\n  - prompt: @home\n", 2, "put it in quotes"),
        ("batch.yaml", 'prompts:\n  - prompt: "a\n    exemplars: b\n', 2, "text in quotes starts here"),
        ("batch.yaml", "prompts:\n  - a: [b, c\n  - d: 1\n", 2, "a list in brackets starts here"),
        ("batch.yaml", "prompts:\n  - a: b\n   c: d\n", 3, "does not fit the lines above"),
        ("batch.yaml", 'prompts:\n  - "\\q"\n', 2, "an unknown escape"),
        ("batch.yaml", "prompts: []\n---\nprompts: []\n", 2, "a second document starts here"),
        ("batch.json", '{"prompts": [\n  1,\n]}', 2, 'a comma before "]"'),
        ("batch.json", "{'prompts': []}", 1, "expected a key in double quotes"),
        ("batch.json", '{"prompts":\n []', 2, 'expected "," or "}", found the end of the text'),
        ("batch.json", '{"prompts": []}\n}', 2, 'expected the end, found "}"'),
        ("batch.json", '{"prompts": NaN}', 1, 'expected a value, found "NaN"'),
        ("batch.json", '{"prompts" []}', 1, 'expected ":" after "prompts", found "["'),
        ("batch.json", '{"prompts": "a\\x"}', 1, "no closing quote, or a wrong escape"),
        ("batch.csv", 'prompt,exemplars\n\n"a,b\nc,d\n', 3, "a quote opens in this row and never closes"),
        ("batch.csv", "prompt,,exemplars,prompt\na,b,exemplars/lying,\n", 1, "column 2 has no name"),
    ],
)
def test_a_file_that_cannot_be_read_says_where_and_why(
    folder: Path, settings: Settings, name: str, text: str | bytes, line: int | None, message: str
) -> None:
    error = mistakes(folder, name, text, settings)[0]

    assert error.line == line
    assert message in error.message


def test_a_missing_file_and_a_folder_are_told_apart(folder: Path, settings: Settings) -> None:
    with pytest.raises(BatchErrors, match=r"batch\.yaml: no such file"):
        load_batch(folder / "batch.yaml", settings=settings)
    with pytest.raises(BatchErrors, match="a folder; name the batch file in it"):
        load_batch(folder, settings=settings)


def test_a_missing_exemplar_folder_names_the_nearest_there_is(folder: Path, settings: Settings) -> None:
    text = "prompts:\n  - {{prompt: a, exemplars: {}, preservation: none}}\n"

    def message(exemplars: str) -> str:
        return only(mistakes(folder, "batch.yaml", text.format(exemplars), settings)).message

    assert message("exemplars/liyng") == 'no folder "exemplars/liyng"; did you mean "exemplars/lying"?'
    assert message("images/lying") == 'no folder "images/lying"; there is no folder "images" either'
    assert message("exemplars/empty") == 'no images in "exemplars/empty"; expected .png, .jpg or .webp'
    assert "is not a folder" in message("exemplars/lying/1.png")
