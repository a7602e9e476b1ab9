"""Messages for pydantic's errors, in the words of a batch file's: what was expected, what was found, which field was meant."""

import difflib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from corrector.prompts.json_schema import in_words
from corrector.prompts.located_values import key_name, quoted

EXPECTED, REMEDY = "x-expected", "x-remedy"
"""In a field's JSON Schema: what a value must be, where its keywords do not say it in words; and what to do instead."""
_KNOWN_ELSEWHERE_AS = {
    "prompt": ("text", "input", "description", "positiveprompt"),
    "model": ("modelname", "modelid", "checkpoint", "sdmodelcheckpoint", "engine"),
    "n": (
        "numimages", "numimagesperprompt", "numberofimages", "numoutputs", "numsamples", "batchsize", "samples", "imagecount",
        "count", "niter",
    ),
    "size": ("width", "height", "resolution", "imagesize", "aspectratio", "dimensions"),
    "output_format": ("format", "imageformat", "outputtype"),
    "output_compression": ("compression", "outputquality", "jpegquality"),
    "user": ("userid", "enduser", "enduserid"),
    "negative_prompt": ("negative", "negprompt", "uc"),
    "num_inference_steps": (
        "steps", "numsteps", "inferencesteps", "samplingsteps", "samplesteps", "numsamplingsteps", "ddimsteps",
        "diffusionsteps",
    ),
    "guidance_scale": (
        "guidance", "cfg", "cfgscale", "cfgstrength", "cfgweight", "classifierfreeguidance", "trueguidance", "truecfgscale",
    ),
    "seed": ("randomseed", "noiseseed", "manualseed", "imageseed", "generator"),
    "adapter": ("lora", "loras", "loraname", "loraid", "adaptername", "adapterid", "adapters"),
    "timeout": ("timeouts", "timeoutseconds", "requesttimeout", "deadline"),
    "partial_images": ("previews", "partialimagecount"),
}  # fmt: skip
"""Names that diffusers, web interfaces and other services give our fields, without capitals, "_" and "-"."""
_MEANT = {other: field for field, others in _KNOWN_ELSEWHERE_AS.items() for other in others}
_IMAGE_INPUTS = frozenset((
    "image", "images", "imageurl", "imageurls", "initimage", "inputimage", "mask", "maskimage", "strength",
    "denoisingstrength", "inputfidelity", "controlimage", "referenceimages",
))  # fmt: skip
_ALL_NAMED = 6
"""Of a body with no more fields than this, a message about an unknown one names all."""


def explained(mistake: Mapping[str, Any], model: type[BaseModel]) -> str:
    """What was expected at the place of one of pydantic's errors, and what was found there."""
    value, context = mistake["input"], mistake.get("ctx", {})
    match mistake["type"]:
        case "value_error":
            return str(context["error"])
        case "missing":
            return "missing"
        case "extra_forbidden":
            return "unknown field"
        case "string_too_short":
            return "expected text that is not empty"
        case "string_too_long":
            return f"expected at most {context['max_length']} characters, found {len(value)}"
    schema = _schema(model, mistake["loc"])
    expected = _expected(schema)
    return f"expected {expected}, found {quoted(value)}{_hint(schema, value)}"


def first_mistake(failure: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake of a file or a command, with its place."""
    mistake = failure.errors(include_url=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in mistake["loc"])
    if mistake["type"] == "json_invalid":
        return f"not valid JSON: {mistake['ctx']['error']}"
    message = explained(mistake, model)
    return f"{place.removeprefix('.')}: {message}" if place else message


def unknown_field(name: str, fields: Collection[str]) -> str:
    """The message about a field that a body does not have, with the one that was probably meant."""
    message = f"unknown field: {key_name(name)}"
    if (meant := _meant(name, fields)) is not None:
        form = ", WIDTHxHEIGHT in pixels" if meant == "size" else ""
        return f"{message}; did you mean {meant}{form}?"
    if _folded(name) in _IMAGE_INPUTS:
        return f"{message}; this server draws from a prompt alone"
    if len(fields) <= _ALL_NAMED:
        return f"{message}; expected {', '.join(fields)}"
    return f"{message}; leave it out (/openapi.json lists the fields)"


def _meant(name: str, fields: Collection[str]) -> str | None:
    written = _folded(name)
    spelt = {field.replace("_", ""): field for field in fields}
    found = spelt.get(written) or _MEANT.get(written)
    if found is None and written not in _IMAGE_INPUTS:
        close = difflib.get_close_matches(written[:64], spelt, n=1, cutoff=0.75)
        found = spelt[close[0]] if close else None
    return found if found in fields else None


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _expected(schema: dict[str, Any]) -> str:
    if EXPECTED in schema:
        return str(schema[EXPECTED])
    choices = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if choices:
        *others, last = (quoted(choice) for choice in choices)
        return f"{', '.join(others)} or {last}" if others else last
    if schema.get("format") == "date-time":
        return "a time, such as 2026-11-01T00:00:00Z"
    if schema.get("type") == "object" or "$ref" in schema:
        return "a JSON object"
    return "a list" if schema.get("type") == "array" else in_words(schema)


def _hint(schema: dict[str, Any], value: object) -> str:
    """What to do: the field's own remedy, or the spelling that is accepted."""
    if isinstance(value, str):
        folded = value.strip().lower()
        close = difflib.get_close_matches(folded, schema.get("enum", ()), n=1)
        if close:
            return f"; did you mean {quoted(close[0])}?"
        if "pattern" in schema and re.search(schema["pattern"], folded):
            return f"; did you mean {quoted(folded)}?"
        if schema.get("type") in ("integer", "number", "boolean") and _is_unquoted(folded, schema["type"]):
            return "; write it without quotes"
    return f"; {schema[REMEDY]}" if REMEDY in schema else ""


def _is_unquoted(text: str, kind: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, bool) == (kind == "boolean") and isinstance(value, int | float)


@cache
def _json_schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _schema(model: type[BaseModel], path: Sequence[str | int]) -> dict[str, Any]:
    """The JSON Schema of the value at `path`, without null."""
    found = whole = _json_schema(model)
    for part in path:
        found = found["items"] if isinstance(part, int) else found["properties"][part]
        found = next((form | found for form in found.get("anyOf", ()) if form.get("type") != "null"), found)
        if "$ref" in found:
            found = whole["$defs"][found["$ref"].rpartition("/")[2]]
    return found
