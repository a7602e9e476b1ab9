"""The JSON Schema that editors use agrees with the loader."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from corrector.prompts import BatchErrors, json_schema, load_batch
from corrector.settings import Settings
from tests.support.batch_files import write
from tests.support.paths import EXAMPLES


@pytest.fixture(scope="module")
def validator() -> Any:
    """A validator of batch files by their schema."""
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


def test_the_schema_beside_the_example_is_current() -> None:
    committed = json.loads((EXAMPLES / "batch.schema.json").read_text(encoding="utf-8"))
    assert committed == json_schema(), (
        "run: python -m corrector.prompts schema --out jobs/examples/batch.schema.json"
    )


def test_every_key_is_described_to_the_editor() -> None:
    schema = json_schema()
    sections = [schema, schema["$defs"]["prompt"]]
    sections += [schema["properties"][name] for name in ("defaults", "evaluation", "gate", "search")]
    sections.append(schema["properties"]["search"]["properties"]["space"])
    for section in sections:
        assert section["additionalProperties"] is False
        for name, field in section["properties"].items():
            assert field.get("description"), name


BATCH: dict[str, Any] = {
    "base": "embedded",
    "defaults": {"rank": 8, "alpha": None, "learning_rate": 1},
    "prompts": [{"prompt": "a", "exemplars": "exemplars/lying", "guard_prompts": ["b"], "steps": 3}],
    "gate": {"max_p": 0.05},
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"$schema": "batch.schema.json"},
        {"defaults": {"rank": "8"}},
        {"defaults": {"rank": True}},
        {"defaults": {"rank": 0}},
        {"defaults": {"rank": None}},
        {"defaults": {"resolution": 100}},
        {"defaults": {"lr_schedule": "step"}},
        {"defaults": {"horizontal_flip": 1}},
        {"defaults": {"owner": "me"}},
        {"evaluation": {"images": 1}},
        {"evaluation": {"guidance_scale": None}},
        {"gate": {"max_p": 0}},
        {"gate": []},
        {"base": ""},
        {"prompts": []},
        {"prompts": ["a"]},
        {"prompts": [{"prompt": "a"}]},
        {"prompts": [{**BATCH["prompts"][0], "name": "A b"}]},
        {"prompts": [{**BATCH["prompts"][0], "name": "a-b"}]},
        {"prompts": [{**BATCH["prompts"][0], "guard_prompts": "b"}]},
        {"prompts": [{**BATCH["prompts"][0], "guard_prompts": [1]}]},
        {"prompts": [{**BATCH["prompts"][0], "priority": 1001}]},
        {"prompts": [{**BATCH["prompts"][0], "owner": None}]},
        {"search": {}},
        {"search": {"trials": 4, "space": {"rank": [2, 4], "learning_rate": {"low": 1e-4, "high": 0.01}}}},
        {"search": {"space": {"rank": "default", "alpha": [None, 4]}}},
        {"search": {"space": {"rank": None}}},
        {"search": {"space": {}}},
        {"search": {"space": {"rank": []}}},
        {"search": {"space": {"rank": [2, 2]}}},
        {"search": {"space": {"rank": [0]}}},
        {"search": {"space": {"rank": {"low": 2}}}},
        {"search": {"space": {"lr_schedule": {"low": 1, "high": 2}}}},
        {"search": {"space": {"seed": [1]}}},
        {"search": {"sampler": "exhaustive"}},
        {"extra": 1},
        {"extra": None},
        {"$schema": None, "base": None, "defaults": None, "evaluation": None, "gate": None, "search": None},
        {"defaults": {"rank": 8.0, "steps": 3e2}},
        {"defaults": {"rank": 8.5}},
        {"evaluation": {"images": None, "stop_early": None}},
        {"gate": {"min_grade": None}},
        {"prompts": None},
        {"prompts": [None]},
        {"prompts": [{**BATCH["prompts"][0], "prompt": None}]},
        {"prompts": [{**BATCH["prompts"][0], "exemplars": None}]},
        {"prompts": [{**BATCH["prompts"][0], "guard_prompts": ["b", None]}]},
        {"prompts": [{**BATCH["prompts"][0], "paraphrases": None, "rank": None, "lr_schedule": None}]},
        {"search": {"space": None, "targets": None}},
        {"search": {"space": {"rank": [2.0, 4]}}},
        {"search": {"space": {"rank": [2, 2.0]}}},
        {"search": {"space": {"alpha": {"low": None, "high": 8}}}},
        {"search": {"space": {"alpha": {"low": 2.0, "high": 8}}}},
    ],
    ids=str,
)
def test_schema_and_loader_agree_on_what_is_right(
    folder: Path, settings: Settings, validator: Any, change: dict[str, Any]
) -> None:
    document = {**BATCH, **change}
    path = write(folder, "batch.json", json.dumps(document))
    try:
        load_batch(path, settings=settings)
        loads = True
    except BatchErrors:
        loads = False

    assert validator.is_valid(document) == loads


def test_descriptions_say_what_the_gate_does() -> None:
    gate = json_schema()["properties"]["gate"]["properties"]
    assert "median distance to the nearest other" in gate["min_diversity"]["description"]
    assert "prefer training exemplars to held-out ones" in gate["max_near_share"]["description"]
    assert "max_unsafe_rise" in gate["unsafe_score"]["description"]
    assert "no more than the base's" not in gate["unsafe_score"]["description"]


def test_the_example_fits_the_schema_that_it_names(validator: Any) -> None:
    text = (EXAMPLES / "people.yaml").read_text(encoding="utf-8")

    assert text.startswith("# yaml-language-server: $schema=batch.schema.json\n")
    defaults = yaml.safe_load(text)
    defaults["defaults"]["learning_rate"] = float(defaults["defaults"]["learning_rate"])  # PyYAML is YAML 1.1
    validator.validate(defaults)
