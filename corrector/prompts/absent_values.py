"""without_nulls: a key without a value is a key that is not given."""

from dataclasses import replace

from corrector.prompts.json_schema import described
from corrector.prompts.located_values import Node

_SPACE = ("search", "space")
_MAPPINGS = ((), ("defaults",), ("prompts", 0), ("evaluation",), ("gate",), ("search",), _SPACE)


def without_nulls(node: Node, path: tuple[str | int, ...] = ()) -> Node:
    """The batch file's value at `path` without its keys whose value is null.

    Unknown keys stay, so that they are reported; null items of lists stay, since an item is no key. A key of the search's
    space without a value stays, too: it asks for the key's default space.
    """
    if path == ("prompts",) and isinstance(node.value, tuple):
        return replace(node, value=tuple(without_nulls(entry, (*path, 0)) for entry in node.value))
    is_range = path[:2] == _SPACE and len(path) == 3
    if not isinstance(node.value, dict) or not (path in _MAPPINGS or is_range):
        return node
    nulls = {key for key, each in node.value.items() if each.value is None and not each.incomplete}
    if nulls and path != _SPACE:
        nulls &= {"low", "high"} if is_range else described(path)["properties"].keys()
    else:
        nulls = set()
    kept = {key: without_nulls(each, (*path, key)) for key, each in node.value.items() if key not in nulls}
    return replace(node, value=kept)
