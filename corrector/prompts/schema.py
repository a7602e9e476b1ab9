"""The batch file's JSON Schema, for editors; and the words in which errors describe what a key may hold."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

from corrector.prompts.batch import CorrectionBatch
from corrector.prompts.evaluation import EvaluationSettings, GateThresholds
from corrector.prompts.failing_prompt import FailingPrompt
from corrector.prompts.hyperparameters import HyperParameters
from corrector.prompts.search import NUMERIC, SEARCHED, SearchSettings

REQUIRED_KEYS = ("prompt", "exemplars")
BATCH_KEYS = ("$schema", "base", "defaults", "evaluation", "gate", "search", "prompts")


@cache
def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a batch file in YAML or JSON.

    Hyper-parameters stand beside the other keys of a prompt, and under `defaults` for all prompts.
    """
    entry = {**_properties(FailingPrompt), **_properties(HyperParameters)}
    del entry["hyperparameters"]
    batch = _properties(CorrectionBatch)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Batch of failing prompts",
        "description": "Prompts that a text-to-image base gets wrong, and how to correct each.",
        "type": "object",
        "additionalProperties": False,
        "required": ["prompts"],
        "properties": {
            "$schema": {"type": "string", "description": "Where editors find this schema."},
            "base": batch["base"],
            "defaults": _object(
                _properties(HyperParameters), "Hyper-parameters of all prompts, unless a prompt has its own."
            ),
            "evaluation": _object(_properties(EvaluationSettings), "How results are compared."),
            "gate": _object(_properties(GateThresholds), "What a result must reach to become a candidate."),
            "search": _search(),
            "prompts": {
                "description": "The failing prompts; or the name of a CSV or JSONL file that lists them.",
                "anyOf": [
                    {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/prompt"}},
                    {"type": "string", "pattern": r"\.(csv|jsonl)$"},
                ],
            },
        },
        "$defs": {
            "prompt": {
                **_object(
                    {key: _without_default(schema) for key, schema in entry.items()},
                    "A failing prompt, with its own hyper-parameters where they differ from the defaults.",
                ),
                "required": list(REQUIRED_KEYS),
            }
        },
    }


def described(path: Sequence[str | int]) -> dict[str, Any]:
    """The schema of what stands at `path` in a batch file: of a value that may be nothing, the other form.

    Raises:
        StopIteration: Nothing can stand there.
    """
    schema = json_schema()
    for part in path:
        word = "items" if isinstance(part, int) else "properties"
        found = next(form[word] for form in _forms(schema) if word in form)
        schema = found if isinstance(part, int) else found[part]
    return next(form for form in _forms(schema) if form.get("type") != "null")


def in_words(schema: dict[str, Any]) -> str:
    """What a value may be: "a whole number from 1 to 1024"."""
    if "enum" in schema:
        return "one of " + ", ".join(f'"{choice}"' for choice in schema["enum"])
    match schema["type"]:
        case "object" if "prompts" in schema["properties"]:
            return 'a mapping with the list of prompts under "prompts"'
        case "object" if "prompt" in schema["properties"]:
            return 'a mapping with "prompt" and "exemplars"'
        case "object":
            return "a mapping of settings"
        case "array" if "enum" in schema["items"]:
            return f"a list, each {in_words(schema['items'])}"
        case "array":
            return "a list of prompts" if "$ref" in schema["items"] else "a list of texts"
        case "boolean":
            return "true or false"
        case "string":
            return "text"
    noun = "a whole number" if schema["type"] == "integer" else "a number"
    if "multipleOf" in schema:
        noun = f"a multiple of {schema['multipleOf']}"
    return noun + _bounds(schema)


def _forms(schema: dict[str, Any]) -> list[dict[str, Any]]:
    prompt = json_schema()["$defs"]["prompt"]
    return [prompt if "$ref" in form else form for form in schema.get("anyOf", [schema])]


@cache
def _properties(model: type[BaseModel]) -> dict[str, Any]:
    properties = model.model_json_schema()["properties"]
    return {
        key: {word: value for word, value in schema.items() if word != "title"}
        for key, schema in properties.items()
    }


def _search() -> dict[str, Any]:
    properties = _properties(SearchSettings)
    space = _object({key: _dimension(key) for key in SEARCHED}, properties["space"]["description"])
    return _object(
        {**properties, "space": {**space, "minProperties": 1}},
        "What jobs.search tries, and how it chooses; jobs.correct does not read it.",
    )


def _dimension(key: str) -> dict[str, Any]:
    """What a search may vary a hyper-parameter over: a list of its values, a range, or its default space."""
    field = _properties(HyperParameters)[key]
    value = {word: found for word, found in field.items() if word not in ("default", "description")}
    forms: list[dict[str, Any]] = [
        {"enum": ["default", None]},
        {"type": "array", "minItems": 1, "uniqueItems": True, "items": value},
    ]
    if key in NUMERIC:
        bounds = {name: next(iter(value.get("anyOf", [value]))) for name in ("low", "high")}
        forms.append({**_object(bounds, "From low to high, by ratios."), "required": list(bounds)})
    return {"description": field["description"], "anyOf": forms}


def _object(properties: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "additionalProperties": False,
        "properties": properties,
    }


def _without_default(schema: dict[str, Any]) -> dict[str, Any]:
    return {word: value for word, value in schema.items() if word != "default"}


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}" if high < 1e6 else f" from {low:g} to {high}"
    parts = []
    if low is not None:
        parts.append(f"at least {low:g}")
    if "exclusiveMinimum" in schema:
        parts.append(f"above {schema['exclusiveMinimum']:g}")
    if high is not None:
        parts.append(f"at most {high:g}")
    if "exclusiveMaximum" in schema:
        parts.append(f"below {schema['exclusiveMaximum']:g}")
    return " " + " and ".join(parts) if parts else ""
