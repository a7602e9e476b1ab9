"""The batch file's JSON Schema, for editors, and its descriptions of values in words, for errors."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from corrector.prompts.batch import CorrectionBatch
from corrector.prompts.failing_prompt import HYPERPARAMETER_KEYS

TABLES = ("csv", "tsv", "jsonl", "ndjson")
"""Endings of files that list prompts, which `prompts` of another file may name."""

_PROMPT = "#/$defs/prompt"


@cache
def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a batch file in YAML or JSON.

    Hyper-parameters are written beside the other keys of a prompt, and under `defaults` for all prompts. Null fits every
    key that may be left out.
    """
    found = CorrectionBatch.model_json_schema()
    models = found.pop("$defs")
    del found["properties"]["path"], found["properties"]["written"]
    schema, prompt = _inlined(found, models), _inlined(models["FailingPrompt"], models)
    keys = schema["properties"]
    entry = prompt["properties"] | {
        key: dict(keys["defaults"]["properties"][key]) for key in HYPERPARAMETER_KEYS
    }
    del entry["hyperparameters"]
    for key in (*entry.values(), *keys["search"]["properties"]["space"]["properties"].values()):
        key.pop("default", None)
    listed = {"type": "array", "minItems": 1, "items": {"$ref": _PROMPT}}
    named = {"type": "string", "pattern": rf"\.({'|'.join(TABLES)})$"}
    keys["prompts"] = {"description": keys["prompts"]["description"], "anyOf": [listed, named]}
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Batch of failing prompts",
        "required": ["prompts"],
        "properties": {
            "$schema": {"type": "string", "description": "Where editors find this schema."},
            **keys,
        },
        "$defs": {"prompt": prompt | {"properties": entry}},
    }
    nullable: dict[str, Any] = _with_nulls(whole)
    return nullable


def _with_nulls(schema: Any) -> Any:
    """The schema with null among the types of all properties that are not required."""
    if isinstance(schema, list):
        return [_with_nulls(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {word: _with_nulls(value) for word, value in schema.items()}
    if isinstance(keys := found.get("properties"), dict):
        required = found.get("required", ())
        found["properties"] = {key: each if key in required else _or_null(each) for key, each in keys.items()}
    return found


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value, or of null; a schema of alternatives has null already."""
    if "type" not in schema:
        return schema
    choices = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [schema["type"], "null"]} | choices


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(schema.get("type"), list):
        return schema
    choices = {"enum": [each for each in schema["enum"] if each is not None]} if "enum" in schema else {}
    return schema | {"type": schema["type"][0]} | choices


def _inlined(schema: Any, models: dict[str, Any]) -> Any:
    """The schema without pydantic's titles, and each model where it is used."""
    if isinstance(schema, list):
        return [_inlined(each, models) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        own = {word: value for word, value in schema.items() if word not in ("$ref", "default")}
        schema = models[schema["$ref"].rpartition("/")[2]] | own
    found = {word: _inlined(value, models) for word, value in schema.items() if word != "title"}
    if isinstance(description := found.get("description"), str):
        found["description"] = description.replace("\n", " ")
    return found


def described(path: Sequence[str | int]) -> dict[str, Any]:
    """The schema of the value at `path` in a batch file; for an optional value, without null.

    Raises:
        StopIteration: The batch file has no such path.
    """
    schema = json_schema()
    for part in path:
        word = "items" if isinstance(part, int) else "properties"
        found = next(form[word] for form in _forms(schema) if word in form)
        schema = found if isinstance(part, int) else found[part]
    return _without_null(next(form for form in _forms(schema) if form.get("type") != "null"))


def in_words(schema: dict[str, Any]) -> str:
    """The allowed values in words: "a whole number from 1 to 1024"."""
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
    forms: list[dict[str, Any]] = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return [prompt if "$ref" in form else form for form in forms]


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
