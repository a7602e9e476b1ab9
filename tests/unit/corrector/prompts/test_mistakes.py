"""Every mistake of a file is reported at once, with its line, its field and what would be right."""

from pathlib import Path

import pytest

from corrector.prompts import BatchErrors, load_batch
from corrector.settings import Settings
from tests.support.batch_files import ENTRY, mistakes, only, places, write

MANY_MISTAKES = """\
base: embedded
defaults:
  rank: "8"                                   # a number in quotes
  learning_rat: 2e-3                          # a misspelt key
  warmup_steps: 300                           # as long as the training
  steps: 300
gate:
  max_p: 1.5                                  # out of bounds
  images: 16                                  # belongs elsewhere
prompts:
  - prompt: a person lying on the grass
    exemplars: exemplars/missing              # no such folder
    gaurd_prompts: [a person]                 # a misspelt key
  - prompt: a dog sitting on the beach
    name: A Dog                               # not a name
    exemplars: exemplars/empty                # a folder without images
    batch_size: true                          # a truth for a number
    guard_prompts:
      - a cat
      - 8                                     # a number for text
  - prompt: A person lying  on the GRASS      # a prompt for the second time
    exemplars: exemplars/lying
    guard_prompts: a cat                      # one text for a list
    lr_schedule: Cosinus                      # not one of the choices
  - exemplars: /etc                           # outside; and no prompt in this entry
    preservation: prior                       # without a class prompt
    rank: 4096                                # out of bounds
    rank: 8                                   # a key for the second time
  - just text                                 # not an entry
  - prompt: a cat running
    name: twin
    exemplars: exemplars/lying
    preservation: guard                       # without guard prompts
    learning_rate: .nan                       # not finite
  - prompt: a cat jumping
    name: twin                                # a name for the second time
    exemplars: exemplars/lying
    guard_prompts: [a cat jumping]            # the prompt as its own guard
    paraphrases: ["a kitten jumping", a cat running]   # another prompt of the batch
    resolution: 500                           # not a multiple of 16
"""


def test_a_file_with_many_different_mistakes_reports_them_all_with_their_lines(
    folder: Path, settings: Settings
) -> None:
    errors = mistakes(folder, "batch.yaml", MANY_MISTAKES, settings)

    assert sorted(places(errors), key=str) == sorted(
        [
            (3, "defaults.rank"),
            (4, "defaults.learning_rat"),
            (5, "defaults.warmup_steps"),
            (8, "gate.max_p"),
            (9, "gate.images"),
            (12, "exemplars"),
            (13, "gaurd_prompts"),
            (15, "name"),
            (16, "exemplars"),
            (17, "batch_size"),
            (20, "guard_prompts[1]"),
            (21, "prompt"),
            (23, "guard_prompts"),
            (24, "lr_schedule"),
            (25, "prompt"),
            (25, "exemplars"),
            (26, "class_prompt"),
            (27, "rank"),
            (28, "rank"),
            (29, "prompts[4]"),
            (33, "guard_prompts"),
            (34, "learning_rate"),
            (36, "name"),
            (38, "guard_prompts[0]"),
            (39, "paraphrases[1]"),
            (40, "resolution"),
        ],
        key=str,
    )
    assert [error.line for error in errors] == sorted(error.line or 0 for error in errors)
    assert str(errors[0]) == (
        f'{folder / "batch.yaml"}:3: defaults.rank: expected a whole number from 1 to 1024, found "8"; '
        "write it without quotes"
    )


JSON = """\
{
  "base": 3,
  "prompts": [
    {"prompt": "a person lying", "exemplars": "exemplars/lyin", "guard_prompts": ["a",
      ""]},
    {
      "prompt": "a dog",
      "exemplars": "exemplars/lying", "preservation": "none",
      "rank": 8.0,
      "seed": null,
      "stepps": 3,
      "prompt": "a cat"
    }
  ],
  "promts": []
}
"""


def test_mistakes_in_json_have_lines(folder: Path, settings: Settings) -> None:
    assert places(mistakes(folder, "batch.json", JSON, settings)) == [
        (2, "base"),
        (4, "exemplars"),
        (5, "guard_prompts[1]"),
        (9, "rank"),
        (10, "seed"),
        (11, "stepps"),
        (12, "prompt"),
        (15, "promts"),
    ]


JSON_LINES = """\
{"defaults": {"preservation": "none", "rank": 0}, "gate": {"max_p": "0.01"}}

{"prompt": "a person lying", "exemplars": "exemplars/lying", "ranks": 4}
{"prompt": "a person lying", "exemplars": "exemplars/lying",}
{"prompt": "a dog", "exemplars": 5, "base": "embedded"}
["a cat"]
{"prompt": "a person  lying", "exemplars": "exemplars/empty"}
{"prompt": "unfinished
"""


def test_mistakes_in_jsonl_have_lines_and_a_broken_line_hides_no_other(
    folder: Path, settings: Settings
) -> None:
    assert places(mistakes(folder, "batch.jsonl", JSON_LINES, settings)) == [
        (1, "defaults.rank"),
        (1, "gate.max_p"),
        (3, "ranks"),
        (4, ""),
        (5, "base"),
        (5, "exemplars"),
        (6, "prompts[2]"),
        (7, "exemplars"),
        (7, "prompt"),
        (8, ""),
    ]


CSV = """\
prompt,exemplars,rank,steps,preservation,owners,horizontal_flip,base

a person lying,exemplars/lying,eight,300,none,,,embedded
"a dog
on two lines",exemplars/lying,8,300.5,none,,,
a cat,exemplars/empty,8,300,,,,stabilityai/other
a cat,exemplars/lying,8,300,none,,maybe,
short,exemplars/lying
,exemplars/lying,8,,none,,,
"""


def test_mistakes_in_csv_have_the_lines_at_which_their_rows_start(folder: Path, settings: Settings) -> None:
    assert sorted(places(mistakes(folder, "batch.csv", CSV, settings)), key=str) == [
        (1, "owners"),
        (3, "rank"),
        (4, "prompt"),
        (4, "steps"),
        (6, "base"),
        (6, "exemplars"),
        (6, "guard_prompts"),
        (7, "horizontal_flip"),
        (7, "prompt"),
        (8, ""),
        (9, "prompt"),
    ]


def test_a_missing_or_misspelt_csv_column_is_one_mistake_and_not_one_per_row(
    folder: Path, settings: Settings
) -> None:
    text = "promt,rank,gaurd_prompts\na,0,x\nb,8,y\n"

    assert places(mistakes(folder, "batch.csv", text, settings)) == [
        (1, "promt"),
        (1, "gaurd_prompts"),
        (1, "exemplars"),
        (2, "rank"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('rank: "8"', 'expected a whole number from 1 to 1024, found "8"; write it without quotes'),
        ("rank: 8.0", "expected a whole number from 1 to 1024, found 8"),
        ("rank: true", "expected a whole number from 1 to 1024, found true"),
        ("rank:", "expected a whole number from 1 to 1024, found nothing"),
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


def test_a_misspelt_key_is_not_reported_as_missing_too(folder: Path, settings: Settings) -> None:
    text = "prompts:\n  - promt: a\n    exemplar: exemplars/lying\n    guards: [a dog]\n"

    assert places(mistakes(folder, "batch.yaml", text, settings)) == [
        (2, "promt"),
        (3, "exemplar"),
        (4, "guards"),
    ]


def test_contradictory_defaults_are_reported_once_and_overrides_where_they_stand(
    folder: Path, settings: Settings
) -> None:
    text = "defaults:\n  warmup_steps: 50\n  steps: 50\nprompts:\n" + ENTRY
    assert places(mistakes(folder, "batch.yaml", text, settings)) == [(2, "defaults.warmup_steps")]

    text = "defaults:\n  warmup_steps: 50\nprompts:\n" + ENTRY + "    steps: 40\n"
    error = only(mistakes(folder, "batch.yaml", text, settings))
    assert (error.line, error.field) == (7, "warmup_steps")
    assert "a warm-up of 50 steps leaves nothing of 40 steps" in error.message


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
    text = "prompts:\n" + entry.format("a man!") + entry.format("a man.")

    error = only(mistakes(folder, "batch.yaml", text, settings))

    assert (error.line, error.field) == (3, "name")
    assert (
        error.message
        == '"a-man" is also the name of the prompt in line 2; give one of them a name of its own'
    )


def test_a_name_for_the_second_time_is_seen_even_where_the_prompt_is_wrong(
    folder: Path, settings: Settings
) -> None:
    text = (
        "prompts:\n"
        + ENTRY
        + "    name: twin\n  - {prompt: 8, name: twin, exemplars: exemplars/lying, rank: 4}\n"
    )

    assert places(mistakes(folder, "batch.yaml", text, settings)) == [
        (6, "prompt"),
        (6, "guard_prompts"),
        (6, "name"),
    ]


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
        ("batch.csv", b"\xff\xfep\x00r\x00", 1, "this is UTF-16, not UTF-8"),
        ("batch.csv", b"PK\x03\x04...", 1, "a zip archive or a spreadsheet"),
        ("batch.txt", "prompts: []", None, "must end in one of .yaml, .yml, .json, .jsonl, .csv"),
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


def test_the_errors_are_one_users_error_with_paths_as_the_user_wrote_them(
    folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "batch.yaml", "prompts:\n" + ENTRY + "    rank: 0\n")
    monkeypatch.chdir(folder)

    with pytest.raises(BatchErrors) as raised:
        load_batch(Path("batch.yaml"), settings=settings)

    assert str(raised.value) == "batch.yaml:5: rank: expected a whole number from 1 to 1024, found 0"


def test_a_key_that_the_model_keeps_for_itself_is_an_unknown_key(folder: Path, settings: Settings) -> None:
    text = "path: x\nwritten: y\nprompts:\n" + ENTRY

    assert places(mistakes(folder, "batch.yaml", text, settings)) == [(1, "path"), (2, "written")]


def test_a_misspelt_key_hides_no_mistake_of_the_right_one(folder: Path, settings: Settings) -> None:
    text = "evaluation: {images: 1, image: 8}\nprompts:\n" + ENTRY

    assert [error.field for error in mistakes(folder, "batch.yaml", text, settings)] == [
        "evaluation.image",
        "evaluation.images",
    ]
