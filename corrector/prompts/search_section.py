"""The `search` section of a batch file: its space read value by value, and its contradictions with the prompts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from corrector.prompts.batch import FailingPrompt, prompt_conflicts
from corrector.prompts.explanations import explain
from corrector.prompts.hyperparameters import HyperParameters, field_adapter, hyperparameter_conflicts
from corrector.prompts.mistakes import MistakeLog
from corrector.prompts.places import Node, quoted
from corrector.prompts.search import NUMERIC, Choices, Dimension, Range, SearchSettings, Value
from corrector.prompts.search_space import dimensions, highest, size

DEFAULT = "default"
"""Written for the default space of a hyper-parameter; a key without a value means the same."""
_BOUNDS = ("low", "high")


def read_dimension(key: str, node: Node, log: MistakeLog) -> Dimension | None:
    """What `node` says a search tries for a hyper-parameter; None for its default space.

    What is wrong is logged at its line; then the result is not to be used.
    """
    field = f"search.space.{key}"
    if isinstance(node.value, tuple):
        return _choices(key, field, node, log)
    if isinstance(node.value, dict):
        return _range(key, field, node.value, node, log)
    if node.value not in (None, DEFAULT):
        ranged = " {low: ..., high: ...}," if key in NUMERIC else ""
        expected = f'expected a list of values,{ranged} or "{DEFAULT}"'
        log.add(node.place, field, f"{expected}, found {quoted(node.value)}")
    return None


def _choices(key: str, field: str, node: Node, log: MistakeLog) -> Choices:
    items = node.value if isinstance(node.value, tuple) else ()
    if not items:
        message = "empty: there is nothing to choose from; list values, or remove the key"
        log.add(node.place, field, message)
    values: list[Value] = []
    for number, item in enumerate(items):
        for value in _valid(key, item, f"{field}[{number}]", log):
            if value in values:
                log.add(item.place, f"{field}[{number}]", f"{quoted(value)} is there twice; remove one")
            values.append(value)
    return Choices(values=tuple(values))


def _range(key: str, field: str, parts: Mapping[str, Node], node: Node, log: MistakeLog) -> Range | None:
    if key not in NUMERIC:
        log.add(node.place, field, "has no range: it is chosen from a list of words")
        return None
    for name in parts.keys() - set(_BOUNDS):
        log.add(parts[name].place, f"{field}.{name}", "unknown key; a range has low and high")
    bounds: dict[str, Any] = {}
    for name in _BOUNDS:
        if name not in parts:
            log.add(node.place, f"{field}.{name}", f"missing in the range; write {{low: ..., {name}: ...}}")
        elif parts[name].value is None:
            log.add(parts[name].place, f"{field}.{name}", "expected a number, found nothing")
        else:
            for value in _valid(key, parts[name], f"{field}.{name}", log):
                bounds[name] = value
    if len(bounds) < len(_BOUNDS):
        return None
    low, high = bounds["low"], bounds["high"]
    if low >= high:
        message = f"empty: low, {low:g}, is not below high, {high:g}; swap or part them"
        log.add(node.place, field, message)
    return Range(low=low, high=high)


def _valid(key: str, node: Node, field: str, log: MistakeLog) -> Iterator[Any]:
    """The value of `node` if the hyper-parameter can have it; otherwise it is logged."""
    try:
        yield field_adapter(HyperParameters, key).validate_python(node.plain(), strict=node.typed)
    except ValidationError as error:
        log.add(node.place, field, explain(error.errors()[0], HyperParameters, key, node))


def search_conflicts(
    search: SearchSettings, prompts: Sequence[FailingPrompt], images: int
) -> Iterator[tuple[str, str]]:
    """What the valid settings of a search contradict, each other or a prompt's, as field and message.

    Args:
        images: Of a whole evaluation, `evaluation.images`.
    """
    if not search.space:
        empty = "empty: nothing would be varied; name hyper-parameters, or run jobs.correct instead"
        yield "search.space", empty
        return
    if "first_images" in search.model_fields_set and search.first_images > images:
        more = "images at the first rung are more than a whole evaluation has"
        yield "search.first_images", f"{search.first_images} {more}, {images}"
    if not search.targets:
        yield "search.targets", "empty: nothing to aim at; name some, or remove the key"
    if len(search.targets) > 1 and search.sampler != "tpe":
        yield "search.targets", f"only tpe aims at several; the sampler is {search.sampler}: set sampler: tpe"
    if len(set(search.targets)) < len(search.targets):
        yield "search.targets", "one is there twice; remove it"
    if search.scope == "batch" and (found := list(_scope_conflicts(search, prompts))):
        yield from found
        return
    # The first prompt with a conflict is enough: the others would mostly say the same again.
    yield from next((found for entry in prompts if (found := list(_entry_conflicts(search, entry)))), ())


def _scope_conflicts(search: SearchSettings, prompts: Sequence[FailingPrompt]) -> Iterator[tuple[str, str]]:
    """What keeps the batch from being searched as a whole: a trial is one configuration, scored at the same steps."""
    if search.objective != "fid":
        yield "search.scope", f"a batch is searched as a whole by fid; the objective is {search.objective}"
    first = prompts[0]
    for key in dict.fromkeys(("steps", *search.space)):
        own = getattr(first.hyperparameters, key)
        others = [entry for entry in prompts[1:] if getattr(entry.hyperparameters, key) != own]
        if others:
            theirs = f"{others[0].name} {quoted(getattr(others[0].hyperparameters, key))}"
            message = f"the batch as a whole needs one {key} to begin with: {first.name} has {quoted(own)}, {theirs}"
            yield "search.scope", f"{message}; set it under defaults"
    if "preservation" in search.space:
        spaces = [dimensions({"preservation": search.space["preservation"]}, entry) for entry in prompts]
        if any(space != spaces[0] for space in spaces):
            yield (
                "search.space.preservation",
                "its default differs among the prompts, some of which have no guard prompts or no class prompt; list values",
            )


def _entry_conflicts(search: SearchSettings, entry: FailingPrompt) -> Iterator[tuple[str, str]]:
    space = dimensions(search.space, entry)
    settings, total = entry.hyperparameters, size(space)
    if search.sampler == "grid" and total is None:
        ranges = [key for key, each in space.items() if isinstance(each, Range)]
        yield f"search.space.{ranges[0]}", "a range has no end: a grid needs lists; or set sampler: sobol"
    elif search.sampler == "grid" and total is not None and total > search.trials:
        yield "search.trials", f"the grid has {total} configurations; raise trials, or set sampler: sobol"
    most = round(highest(space, "steps", settings.steps))
    if search.max_steps is not None and search.max_steps < most:
        less = f"a budget of {search.max_steps} steps is less than the {most} of one trial ({entry.name})"
        yield "search.max_steps", less
    kept = space.get("preservation", Choices(values=(settings.preservation,)))
    if "preservation_weight" in space and kept == Choices(values=("none",)):
        nothing = "contradicts preservation: none, under which there is nothing to weigh"
        yield "search.space.preservation_weight", f"{entry.name}: {nothing}"
    described = {"guard_prompts": entry.guard_prompts, "class_prompt": entry.class_prompt}
    for key, dimension in space.items():
        for value in dimension.values if isinstance(dimension, Choices) else (dimension.low,):
            conflicts = [*hyperparameter_conflicts({**dict(settings), key: value})]
            if key == "preservation":
                conflicts += prompt_conflicts({**described, "preservation": value})
            for conflict in conflicts:
                why = f"{quoted(value)} for {entry.name}: {conflict.field}: {conflict.message}"
                yield f"search.space.{key}", why
