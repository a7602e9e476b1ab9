"""Messages for pydantic's errors in a batch file: the line, the key that was meant, and what was expected."""

import difflib
import re
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from corrector.prompts.failing_prompt import HYPERPARAMETER_KEYS, slug
from corrector.prompts.json_schema import described, in_words
from corrector.prompts.located_values import Node, Place, key_name, quoted
from corrector.prompts.mistakes import MistakeLog
from corrector.prompts.yaml_reader import plain_scalar

Path = tuple[str | int, ...]
"""The keys and indices that lead to a value of the file."""

_KNOWN_ELSEWHERE_AS = {
    "lr": "learning_rate",
    "lr_scheduler": "lr_schedule",
    "lr_warmup_steps": "warmup_steps",
    "max_train_steps": "steps",
    "train_batch_size": "batch_size",
    "weighting_scheme": "timestep_density",
    "lora_alpha": "alpha",
    "r": "rank",
    "instance_prompt": "prompt",
    "instance_data_dir": "exemplars",
    "images": "exemplars",
    "guards": "guard_prompts",
    "model": "base",
    "pretrained_model_name_or_path": "base",
    "cfg": "guidance_scale",
}
"""Names of the same things in diffusers' scripts and in PEFT, too far from ours for their letters to tell."""

_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+([eE][-+]?[0-9]+)?")

_MISSING = {
    "prompts": "missing; list the failing prompts here",
    "prompt": "missing in prompts[{index}]; write the prompt at which the base fails",
    "exemplars": "missing in prompts[{index}]; name a folder of good images of the prompt",
    "low": "missing in the range; write {{low: ..., high: ...}}",
    "high": "missing in the range; write {{low: ..., high: ...}}",
}


def log_errors(failure: ValidationError, root: Node, log: MistakeLog) -> None:
    """Log each error at its line, and each mistake once.

    A key that was only misspelt is not reported as missing too. A wrong default is reported only under `defaults`.

    Raises:
        BatchErrors: There are too many.
    """
    errors = [
        (_in_file(error["loc"]), error)
        for error in failure.errors(include_url=False)
        if error["type"] != "default_factory_not_called"  # the name, after a mistake in the prompt
    ]
    told: set[Path] = set()
    for path, error in errors:
        if error["type"] == "extra_forbidden":
            meant = log_unknown_key(log, root.find(path).place, path)
            told.add((*path[:-1], meant or ""))
    for path, error in errors:
        if error["type"] == "conflict":
            _log_conflict(path, error["ctx"], root, log, told)
        elif error["type"] != "extra_forbidden" and not _is_default(path, root):
            node, written = root.find(path), root.get(path)
            by_its_valid_items = error["type"] == "too_short" and node.value
            if not (node.incomplete or by_its_valid_items or (path in told and not written)):
                log.add(node.place, _field(path), _explain(error, path, node, root))


def _in_file(location: Path) -> Path:
    """The path in the file of pydantic's location in the model."""
    if location[:1] == ("prompts",) and location[2:3] == ("hyperparameters",):
        return (*location[:2], *location[3:])
    if location[:2] == ("search", "space"):  # the fourth is the form that was recognised
        return (*location[:3], *location[4:])
    return location


def _field(path: Path) -> str:
    """The field of a mistake: "gate.max_p"; below a prompt, without the prompt: "guard_prompts[2]"."""
    named = path[2:] if path[0:1] == ("prompts",) and len(path) > 2 else path
    parts = (f"[{part}]" if isinstance(part, int) else f".{key_name(part)}" for part in named)
    return "".join(parts).removeprefix(".")


def _is_default(path: Path, root: Node) -> bool:
    """Whether a prompt has the value from the defaults."""
    in_prompt = len(path) > 2 and path[0] == "prompts" and path[2] in HYPERPARAMETER_KEYS
    return in_prompt and root.get(path[:3]) is None


def _log_conflict(path: Path, context: dict[str, Any], root: Node, log: MistakeLog, told: set[Path]) -> None:
    """Log values that contradict each other, at the likeliest of those in the file."""
    above = path[:2] if path[0] == "prompts" else path[:1]
    fields = [(*above, field) for field in context["fields"]]
    nodes = [node for field in fields if (node := root.get(field))]
    only_defaults = not nodes and all(_is_default(field, root) for field in fields)
    if not (only_defaults or told & set(fields) or any(node.incomplete for node in nodes)):
        place = nodes[0].place if nodes else root.find(above).place
        log.add(place, _field(fields[0]), context["message"])


def log_unknown_key(log: MistakeLog, place: Place, path: Path) -> str | None:
    """Log the key at the end of `path`, which its mapping does not have; return the one that was probably meant."""
    key = str(path[-1])
    scope, scopes = _scope(path[:-1]), _scopes()
    known = scopes.get(scope, ("low", "high"))
    field = _field(path)
    meant = _nearest(key, known)
    elsewhere = [other for other in scopes if other != scope and key in scopes[other]]
    if key == "hyperparameters" and scope == "prompts":
        log.add(place, field, "unknown key; write the hyper-parameters beside the prompt, or under defaults")
    elif elsewhere and meant and key in _KNOWN_ELSEWHERE_AS:
        where = _whereabouts(elsewhere)
        log.add(place, field, f'unknown key here; did you mean "{meant}"? This key belongs {where}')
    elif elsewhere:
        log.add(place, field, f"unknown key here; it belongs {_whereabouts(elsewhere)}")
        return None
    elif meant:
        log.add(place, field, f'unknown key; did you mean "{meant}"?')
    elif len(known) <= 10:
        log.add(place, field, f"unknown key; expected one of {', '.join(sorted(known))}")
    else:
        log.add(place, field, "unknown key; remove it (`python -m corrector.prompts schema` lists all keys)")
    return meant


@cache
def _scopes() -> dict[str, tuple[str, ...]]:
    """The keys of each scope; the empty scope is the batch file's top level."""
    sections = (("evaluation",), ("gate",), ("search",), ("search", "space"))
    paths: list[Path] = [(), ("defaults",), ("prompts", 0), *sections]
    return {_scope(path): tuple(described(path)["properties"]) for path in paths}


def _scope(path: Path) -> str:
    return ".".join(part for part in path if isinstance(part, str))


def _nearest(key: str, known: tuple[str, ...]) -> str | None:
    written = key.strip().lower().replace("-", "_").replace(" ", "_")
    if (translated := _KNOWN_ELSEWHERE_AS.get(written)) in known:
        return translated
    if written in known:
        return written
    close = difflib.get_close_matches(written[:100], known, n=1, cutoff=0.7)
    return close[0] if close else None


def _whereabouts(scopes: list[str]) -> str:
    words = {"": "to the whole batch", "prompts": "to a prompt"}
    return " or ".join(words.get(scope, f"under {scope}") for scope in scopes)


def _explain(error: ErrorDetails, path: Path, node: Node, root: Node) -> str:
    context, value = error.get("ctx", {}), node.value
    if "message" in context:
        return str(context["message"])
    match error["type"]:
        case "missing":
            return _MISSING[str(path[-1])].format(index=path[1] if len(path) > 1 else 0)
        case "repeated":
            line = root.find(("prompts", *context["first"])).place.line
            return f"{context['text']} is also {context['role']} in line {line}; {context['remedy']}"
        case "form":
            return f"{error['msg']}, found {quoted(value)}"
        case "string_pattern_mismatch":
            expected = 'lower-case letters, digits, "-" and "_", at most 64, with a letter or digit first'
            return f"expected {expected}, found {quoted(value)}; for example {quoted(slug(str(value)))}"
        case "string_too_short":
            return "empty; write something, or remove the key"
        case "string_too_long":
            return f"expected at most {context['max_length']} characters, found {len(str(value))}"
        case "too_short" if path == ("prompts",):
            return "no prompts; list at least one"
        case "too_short":
            return "empty: there is nothing to choose from; list values, or remove the key"
        case "too_long":
            return f"expected at most {context['max_length']} texts, found {context['actual_length']}"
    schema = described(path)
    expected = in_words(schema)
    return f"expected {expected}, found {quoted(value)}{_hint(expected, schema, node)}"


def _hint(expected: str, schema: dict[str, Any], node: Node) -> str:
    value = node.value
    if isinstance(value, str):
        if close := difflib.get_close_matches(value.lower(), schema.get("enum", ()), n=1):
            return f'; did you mean "{close[0]}"?'
        if expected.startswith("a list"):
            return f"; write [{quoted(value)}]"
        if _DECIMAL_COMMA.fullmatch(value) and "number" in expected:
            return f"; write {value.replace(',', '.')}, with a point"
        unquoted = plain_scalar(value)
        meant = isinstance(unquoted, bool) == (expected == "true or false") and not isinstance(unquoted, str)
        if node.typed and meant:
            return "; write it without quotes"
    elif expected == "text" and isinstance(value, int | float):
        return "; put it in quotes"
    return ""
