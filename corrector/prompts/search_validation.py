"""The `search` section of a batch file: its space read value by value, and its contradictions with the prompts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from corrector.prompts.batch import FailingPrompt, prompt_conflicts
from corrector.prompts.errors import ErrorLog, Place
from corrector.prompts.explanations import explain
from corrector.prompts.hyperparameters import HyperParameters, hyperparameter_conflicts
from corrector.prompts.nodes import Node, quoted
from corrector.prompts.search import NUMERIC, Choices, Dimension, Range, SearchSettings, Value
from corrector.prompts.search_space import dimensions, highest, size

DEFAULT = "default"
_BOUNDS = ("low", "high")

Validate = Callable[[str, object, bool], Any]
"""(hyper-parameter, value, strict) to the valid value, or a ValidationError."""


def read_space(nodes: Mapping[str, Node], validate: Validate, log: ErrorLog) -> dict[str, Dimension | None]:
    """The space that `nodes` describe by hyper-parameter; what is wrong is logged at its line."""
    found: dict[str, Dimension | None] = {}
    for key, node in nodes.items():
        if node.incomplete:
            continue
        reader = _Reader(key, validate, log)
        dimension = reader.read(node)
        if dimension is not None or node.value == DEFAULT:
            found[key] = dimension
    return found


@dataclass(frozen=True)
class _Reader:
    """Reads one hyper-parameter's dimension."""

    key: str
    validate: Validate
    log: ErrorLog

    def read(self, node: Node) -> Dimension | None:
        if isinstance(node.value, tuple):
            return self._choices(node, node.value)
        if isinstance(node.value, dict):
            return self._range(node, node.value)
        if node.value != DEFAULT:
            ranged = " {low: ..., high: ...}," if self.key in NUMERIC else ""
            self._complain(
                node, f'expected a list of values,{ranged} or "{DEFAULT}", found {quoted(node.value)}'
            )
        return None

    def _choices(self, node: Node, items: Sequence[Node]) -> Choices | None:
        if not items:
            self._complain(node, "empty: there is nothing to choose from; list values, or remove the key")
            return None
        values: list[Value] = []
        whole = True
        for number, item in enumerate(items):
            right, value = self._value(item, f"[{number}]")
            whole = whole and right
            if right and value in values:
                self._complain(item, f"{quoted(value)} is there twice; remove one", f"[{number}]")
                whole = False
            values.append(value)
        return Choices(values=tuple(values)) if whole else None

    def _range(self, node: Node, parts: Mapping[str, Node]) -> Range | None:
        if self.key not in NUMERIC:
            self._complain(node, "has no range: it is chosen from a list of words")
            return None
        for name in parts.keys() - set(_BOUNDS):
            self._complain(parts[name], "unknown key; a range has low and high", f".{name}")
        bounds = {}
        for name in _BOUNDS:
            if name not in parts:
                self._complain(node, f"missing in the range; write {{low: ..., {name}: ...}}", f".{name}")
                continue
            right, bounds[name] = self._value(parts[name], f".{name}")
            if not right or bounds[name] is None:
                return None
        if len(parts) != len(bounds) or len(bounds) < len(_BOUNDS):
            return None
        if bounds["low"] >= bounds["high"]:
            self._complain(
                node,
                f"empty: low, {bounds['low']:g}, is not below high, {bounds['high']:g}; swap or part them",
            )
            return None
        return Range(**bounds)

    def _value(self, node: Node, where: str) -> tuple[bool, Any]:
        try:
            return True, self.validate(self.key, node.plain(), node.typed)
        except ValidationError as error:
            self._complain(node, explain(error.errors()[0], HyperParameters, self.key, node), where)
            return False, None

    def _complain(self, node: Node, message: str, where: str = "") -> None:
        self.log.add(node.place, f"search.space.{self.key}{where}", message)


def check_search(
    search: SearchSettings,
    prompts: Sequence[FailingPrompt],
    images: int,
    places: Mapping[str, Place],
    otherwise: Place,
    log: ErrorLog,
) -> None:
    """Log what the valid settings of a search contradict: each other, or what a prompt can be trained with.

    Args:
        images: Of a whole evaluation, `evaluation.images`.
        places: Where the section's keys were written ("search.space.rank"); `otherwise` is for those that were not.
    """
    for field, message in _conflicts(search, prompts, images):
        log.add(places.get(field, otherwise), field, message)


def _conflicts(
    search: SearchSettings, prompts: Sequence[FailingPrompt], images: int
) -> Iterator[tuple[str, str]]:
    if not search.space:
        yield (
            "search.space",
            "empty: nothing would be varied; name hyper-parameters, or run jobs.correct instead",
        )
        return
    if "first_images" in search.model_fields_set and search.first_images > images:
        yield (
            "search.first_images",
            f"{search.first_images} images at the first rung are more than a whole evaluation has, {images}",
        )
    if not search.targets:
        yield "search.targets", "empty: nothing to aim at; name some, or remove the key"
    if len(search.targets) > 1 and search.sampler != "tpe":
        yield "search.targets", f"only tpe aims at several; the sampler is {search.sampler}: set sampler: tpe"
    if len(set(search.targets)) < len(search.targets):
        yield "search.targets", "one is there twice; remove it"
    if search.scope == "batch":
        found = list(_scope_conflicts(search, prompts))
        yield from found
        if found:
            return
    for entry in prompts:
        found = list(_entry_conflicts(search, entry))
        yield from found
        if found:  # the other prompts would say the same again
            return


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
        yield (
            "search.max_steps",
            f"a budget of {search.max_steps} steps is less than the {most} of one trial ({entry.name})",
        )
    if "preservation_weight" in space and _preservations(space, settings) == {"none"}:
        yield (
            "search.space.preservation_weight",
            f"{entry.name}: contradicts preservation: none, under which there is nothing to weigh",
        )
    described = {"guard_prompts": entry.guard_prompts, "class_prompt": entry.class_prompt}
    for key, dimension in space.items():
        values = dimension.values if isinstance(dimension, Choices) else (dimension.low,)
        for value in values:
            trained = {**settings.model_dump(), key: value}
            conflicts = [*hyperparameter_conflicts(trained)]
            if key == "preservation":
                conflicts += prompt_conflicts({**described, "preservation": value})
            for conflict in conflicts:
                yield (
                    f"search.space.{key}",
                    f"{quoted(value)} for {entry.name}: {conflict.field}: {conflict.message}",
                )


def _preservations(space: Mapping[str, Dimension], settings: HyperParameters) -> set[Value]:
    found = space.get("preservation")
    return set(found.values) if isinstance(found, Choices) else {settings.preservation}
