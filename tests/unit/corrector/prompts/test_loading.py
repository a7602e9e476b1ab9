"""The four formats say the same things."""

import json
import pickle
from pathlib import Path

import pytest

from corrector.prompts import CorrectionBatch, load_batch
from corrector.settings import Settings
from tests.support.batch_files import ENTRY, mistakes, only, write

YAML = """\
base: stabilityai/stable-diffusion-3.5-medium
defaults:
  rank: 8
  learning_rate: 2e-3
prompts:
  - prompt: a person lying on the grass
    exemplars: exemplars/lying
    paraphrases: [someone lying on the lawn, "a man, stretched out"]
    guard_prompts:
      - a person sitting on the grass
      - a person
    owner: parks team
    priority: 5
    steps: 400
    learning_rate: 1e-3
  - prompt: "a \\"dog\\" sitting"
    name: dog
    exemplars: exemplars/sitting
    preservation: prior
    class_prompt: a dog
    horizontal_flip: true
    alpha: 4
"""

ENTRIES = [
    {
        "prompt": "a person lying on the grass",
        "exemplars": "exemplars/lying",
        "paraphrases": ["someone lying on the lawn", "a man, stretched out"],
        "guard_prompts": ["a person sitting on the grass", "a person"],
        "owner": "parks team",
        "priority": 5,
        "steps": 400,
        "learning_rate": 1e-3,
    },
    {
        "prompt": 'a "dog" sitting',
        "name": "dog",
        "exemplars": "exemplars/sitting",
        "preservation": "prior",
        "class_prompt": "a dog",
        "horizontal_flip": True,
        "alpha": 4,
    },
]
HEADER = {
    "base": "stabilityai/stable-diffusion-3.5-medium",
    "defaults": {"rank": 8, "learning_rate": 2e-3},
}

COLUMNS = (
    "base,prompt,name,exemplars,paraphrases,guard_prompts,owner,priority,steps,learning_rate,rank,"
    "preservation,class_prompt,horizontal_flip,alpha"
)
LYING = (
    "stabilityai/stable-diffusion-3.5-medium,a person lying on the grass,,exemplars/lying,"
    '"someone lying on the lawn | a man, stretched out",a person sitting on the grass|a person,'
    "parks team,5,400,1e-3,8,,,,"
)
DOG = ',"a ""dog"" sitting",dog,exemplars/sitting,,,,,,2e-3,8,prior,a dog,true,4'

FILES = {
    "batch.yaml": YAML,
    "batch.json": json.dumps({"$schema": "batch.schema.json", **HEADER, "prompts": ENTRIES}, indent=1),
    "batch.jsonl": "\n".join(map(json.dumps, (HEADER, *ENTRIES))) + "\n\n",
    "batch.csv": "\n".join((COLUMNS, LYING, DOG)) + "\n",
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_batch(folder: Path, settings: Settings, name: str) -> None:
    batch = load_batch(write(folder, name, FILES[name]), settings=settings)

    assert batch.base == "stabilityai/stable-diffusion-3.5-medium"
    assert batch.path == folder / name
    lying, dog = batch.prompts
    assert lying.name == "a-person-lying-on-the-grass"
    assert lying.paraphrases == ("someone lying on the lawn", "a man, stretched out")
    assert lying.guard_prompts == ("a person sitting on the grass", "a person")
    assert (lying.owner, lying.priority, dog.owner, dog.priority) == ("parks team", 5, None, 0)
    assert batch.exemplar_folder(lying) == folder / "exemplars" / "lying"
    assert (dog.prompt, dog.name, dog.class_prompt) == ('a "dog" sitting', "dog", "a dog")
    own, other = lying.hyperparameters, dog.hyperparameters
    assert (own.rank, own.steps, own.learning_rate, own.preservation) == (8, 400, 1e-3, "guard")
    assert (other.rank, other.steps, other.learning_rate, other.preservation) == (8, 500, 2e-3, "prior")
    assert (other.horizontal_flip, other.alpha) == (True, 4.0)


def test_a_batch_survives_pickling_and_json(folder: Path, settings: Settings) -> None:
    batch = load_batch(write(folder, "batch.yaml", YAML), settings=settings)

    assert pickle.loads(pickle.dumps(batch)) == batch
    again = CorrectionBatch.model_validate_json(batch.model_dump_json())
    assert again.prompts == batch.prompts


@pytest.mark.parametrize(
    "header",
    [
        {"base": "stabilityai/other"},
        {"defaults": {"rank": 8}},
        {"evaluation": {"images": 64}},
        {"gate": {"max_p": 0.05}},
        {"search": {"trials": 3}},
        {"$schema": "batch.schema.json"},
    ],
    ids=str,
)
def test_a_first_line_of_settings_is_no_prompt(
    folder: Path, settings: Settings, header: dict[str, object]
) -> None:
    text = "\n".join(map(json.dumps, (header, *ENTRIES)))

    assert len(load_batch(write(folder, "batch.jsonl", text), settings=settings).prompts) == 2


def test_yaml_settings_can_name_a_table_of_prompts(folder: Path, settings: Settings) -> None:
    write(folder, "people.csv", "prompt,exemplars,steps\na person lying,exemplars/lying,40\n")
    text = "defaults: {preservation: none}\ngate: {max_p: 0.05}\nprompts: people.csv\n"

    batch = load_batch(write(folder, "batch.yaml", text), settings=settings)

    assert [prompt.hyperparameters.steps for prompt in batch.prompts] == [40]
    assert batch.prompts[0].hyperparameters.preservation == "none"
    assert batch.gate.max_p == 0.05


def test_mistakes_in_a_named_table_are_reported_with_those_of_the_batch_file(
    folder: Path, settings: Settings
) -> None:
    write(folder, "people.csv", "base,prompt,exemplars\nembedded,a person lying,exemplars/lyign\n")

    errors = mistakes(folder, "batch.yaml", "prompts: people.csv\nbase: 3\n", settings)

    assert [(Path(error.file).name, error.line, error.field) for error in errors] == [
        ("batch.yaml", 2, "base"),
        ("people.csv", 2, "base"),
        ("people.csv", 2, "exemplars"),
        ("people.csv", 2, "guard_prompts"),
    ]
    assert all(Path(error.file).parent == folder for error in errors)


def test_a_table_is_read_where_the_batch_file_has_a_key_twice(folder: Path, settings: Settings) -> None:
    write(folder, "people.csv", "prompt,exemplars,preservation\na person lying,exemplars/lyign,none\n")

    errors = mistakes(folder, "batch.yaml", "base: embedded\nbase: embedded\nprompts: people.csv\n", settings)

    assert [(Path(error.file).name, error.line, error.field) for error in errors] == [
        ("batch.yaml", 2, "base"),
        ("people.csv", 2, "exemplars"),
    ]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("people.csv", "no file"),
        ("people.xlsx", "a .csv, .tsv, .jsonl or .ndjson file"),
        ("tables\\people.csv", 'write / between folders: "tables/people.csv"'),
        ("/etc/people.csv", "leads outside"),
        ("../people.csv", "leads outside"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_mistake(
    folder: Path, settings: Settings, named: str, message: str
) -> None:
    error = only(mistakes(folder, "batch.yaml", f"base: embedded\nprompts: {named}\n", settings))

    assert (error.line, error.field) == (2, "prompts")
    assert message in error.message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_comes_in_any_encoding_that_says_what_it_is(
    folder: Path, settings: Settings, encoding: str
) -> None:
    text = "prompt\texemplars\tpreservation\r\na café\texemplars/lying\tnone\r\n"

    batch = load_batch(write(folder, "batch.tsv", text.encode(encoding)), settings=settings)

    assert batch.prompts[0].prompt == "a café"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_comes_with_any_usual_delimiter(folder: Path, settings: Settings, delimiter: str) -> None:
    rows = [["prompt", "exemplars", "preservation"], ["a person lying", "exemplars/lying", "none"]]
    text = "\r\n".join(map(delimiter.join, rows))

    assert (
        load_batch(write(folder, "batch.csv", text), settings=settings).prompts[0].prompt == "a person lying"
    )


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_and_line_ends_of_any_system_are_read(
    folder: Path, settings: Settings, newline: str, mark: bytes
) -> None:
    text = ("prompts:\n" + ENTRY).replace("\n", newline).encode()

    assert len(load_batch(write(folder, "batch.yaml", mark + text), settings=settings).prompts) == 1
    error = only(mistakes(folder, "batch.yaml", mark + text + b"    rank: 0", settings))
    assert (error.line, error.field) == (5, "rank")


def test_numbers_are_those_of_yaml_1_2(folder: Path, settings: Settings) -> None:
    text = "prompts:\n" + ENTRY + "    learning_rate: 2e-3\n    rank: 0x10\n    seed: 0o17\n    owner: no\n"

    prompt = load_batch(write(folder, "batch.yaml", text), settings=settings).prompts[0]

    assert (prompt.hyperparameters.learning_rate, prompt.hyperparameters.rank) == (2e-3, 16)
    assert (prompt.hyperparameters.seed, prompt.owner) == (15, "no")


def test_aliases_share_what_several_prompts_have_in_common(folder: Path, settings: Settings) -> None:
    text = (
        "prompts:\n"
        "  - {prompt: a person lying, exemplars: exemplars/lying, guard_prompts: &guards [a dog, a cat]}\n"
        "  - {prompt: a person sitting, exemplars: exemplars/sitting, guard_prompts: *guards}\n"
    )

    prompts = load_batch(write(folder, "batch.yaml", text), settings=settings).prompts

    assert [prompt.guard_prompts for prompt in prompts] == [("a dog", "a cat")] * 2


def test_sections_without_content_and_surrounding_spaces_are_nothing(
    folder: Path, settings: Settings
) -> None:
    text = (
        "defaults:\nevaluation:\n  # images: 64\ngate: {}\nprompts:\n"
        "  - prompt: >\n      a person lying\n      on the grass\n"
        "    exemplars: exemplars/lying\n    preservation: none\n    alpha:\n"
    )

    prompt = load_batch(write(folder, "batch.yaml", text), settings=settings).prompts[0]

    assert prompt.prompt == "a person lying on the grass"
    assert prompt.hyperparameters.alpha is None
