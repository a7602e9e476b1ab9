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
      "rank": 8.5,
      "seed": "1",
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
