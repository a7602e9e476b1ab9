"""What a value of the wrong kind is told: what was expected, what was found, and how to put it right."""

import difflib

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from corrector.prompts.batch import slug
from corrector.prompts.nodes import Node, quoted
from corrector.prompts.schema import choices, expectation
from corrector.prompts.yaml_text import plain_scalar


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
