"""The words in which a mistake is told: an unknown key with the one that was meant, a wrong value with what was expected."""

import difflib

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from corrector.prompts.batch import slug
from corrector.prompts.evaluation import EvaluationSettings, GateThresholds
from corrector.prompts.mistakes import MistakeLog
from corrector.prompts.places import Node, Place, key_name, quoted
from corrector.prompts.schema import BATCH_KEYS, HYPERPARAMETER_KEYS, PROMPT_KEYS, choices, expectation
from corrector.prompts.search import SEARCHED, SearchSettings
from corrector.prompts.yaml_reader import plain_scalar

SCOPES: dict[str, tuple[str, ...]] = {
    "": BATCH_KEYS,
    "defaults": HYPERPARAMETER_KEYS,
    "prompts": (*PROMPT_KEYS, *HYPERPARAMETER_KEYS),
    "evaluation": tuple(EvaluationSettings.model_fields),
    "gate": tuple(GateThresholds.model_fields),
    "search": tuple(SearchSettings.model_fields),
    "search.space": SEARCHED,
}
"""Which keys stand where; the empty scope is the batch file's top level."""

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


def log_unknown_key(log: MistakeLog, place: Place, key: str, scope: str) -> str | None:
    """Log a key that `scope` does not have; return the key of that scope that was probably meant."""
    prefix = f"{scope}." if scope not in ("", "prompts") else ""
    field = prefix + key_name(key)
    meant = _nearest(key, SCOPES[scope])
    elsewhere = [other for other in SCOPES if other != scope and key in SCOPES[other]]
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
    elif len(SCOPES[scope]) <= 10:
        log.add(place, field, f"unknown key; expected one of {', '.join(sorted(SCOPES[scope]))}")
    else:
        log.add(place, field, "unknown key; remove it (`python -m corrector.prompts schema` lists all keys)")
    return meant


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


def explain(
    details: ErrorDetails, model: type[BaseModel], key: str, node: Node, *, is_item: bool = False
) -> str:
    """The message for pydantic's complaint about `node`, the value of a model's field or an item of it."""
    value = node.value
    expected = expectation(model, key, item=is_item)
    match details["type"]:
        case "unprintable":
            return details["msg"]
        case "string_pattern_mismatch":
            expected = 'lower-case letters, digits, "-" and "_", at most 64, with a letter or digit first'
            return f"expected {expected}, found {quoted(value)}; for example {quoted(slug(str(value)))}"
        case "string_too_short":
            return "empty; write something, or remove the key"
        case "string_too_long":
            return f"expected at most {details['ctx']['max_length']} characters, found {len(str(value))}"
        case "too_long":
            limits = details["ctx"]
            return f"expected at most {limits['max_length']} texts, found {limits['actual_length']}"
    return f"expected {expected}, found {quoted(value)}{_hint(expected, model, key, node)}"


def _hint(expected: str, model: type[BaseModel], key: str, node: Node) -> str:
    value = node.value
    if isinstance(value, str):
        if close := difflib.get_close_matches(value.lower(), choices(model, key), n=1):
            return f'; did you mean "{close[0]}"?'
        if expected.startswith("a list"):
            return f"; write [{quoted(value)}]"
        unquoted = plain_scalar(value)
        if (
            node.typed
            and isinstance(unquoted, bool) == (expected == "true or false")
            and not isinstance(unquoted, str)
        ):
            return "; write it without quotes"
    elif expected.startswith("text") and isinstance(value, int | float):
        return "; put it in quotes"
    return ""
