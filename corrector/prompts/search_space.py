"""The space of a search: its defaults for a prompt, and its configurations, all or some at random."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from corrector.prompts.failing_prompt import FailingPrompt
from corrector.prompts.hyperparameters import HyperParameters
from corrector.prompts.search_settings import WHOLE, Choices, Configuration, Dimension, Range, Value

_FACTORS: Mapping[str, tuple[float, ...]] = {
    "rank": (0.5, 1, 2),
    "alpha": (0.5, 1, 2),
    "steps": (0.5, 1),
    "batch_size": (0.5, 1, 2),
}
_RANGED = ("learning_rate", "preservation_weight")
_RANGE_FACTOR = 4.0
_DRAWS_PER_CONFIGURATION = 50
"""Draws after which a finite space is taken to hold no further configuration."""


def default_dimension(key: str, entry: FailingPrompt) -> Dimension:
    """The default space of `key`: values around the entry's own, or all words that are valid for the entry."""
    settings = entry.hyperparameters
    if key == "preservation":
        possible = {"guard": bool(entry.guard_prompts), "prior": bool(entry.class_prompt), "none": True}
        return Choices(values=tuple(kind for kind, fits in possible.items() if fits))
    if key in ("lr_schedule", "timestep_density"):
        words: Sequence[str] = HyperParameters.model_json_schema()["properties"][key]["enum"]
        return Choices(values=tuple(words))
    own = getattr(settings, key)
    if own is None:  # alpha
        own = float(settings.rank)
    most = bound(key)
    if key in _RANGED:
        return Range(low=_rounded(own / _RANGE_FACTOR), high=min(most, _rounded(own * _RANGE_FACTOR)))
    values = [
        min(int(most), max(1, round(own * factor))) if key in WHOLE else min(most, own * factor)
        for factor in _FACTORS[key]
    ]
    return Choices(values=tuple(dict.fromkeys(values)))


def bound(key: str) -> float:
    """The largest value that a batch file may hold for `key`, a number."""
    schema = HyperParameters.model_json_schema()["properties"][key]
    return float(next(each["maximum"] for each in (schema, *schema.get("anyOf", ())) if "maximum" in each))


def dimensions(space: Mapping[str, Dimension | None], entry: FailingPrompt) -> dict[str, Dimension]:
    """The space for `entry`, with the defaults where `space` names none (None)."""
    return {key: found or default_dimension(key, entry) for key, found in space.items()}


def own_configuration(space: Mapping[str, Dimension], entry: FailingPrompt) -> Configuration:
    """The entry's own values of the varied hyper-parameters; they may lie outside the space."""
    return {key: getattr(entry.hyperparameters, key) for key in space}


def size(space: Mapping[str, Dimension]) -> int | None:
    """Number of configurations; None if a range makes it infinite."""
    total = 1
    for dimension in space.values():
        if isinstance(dimension, Range):
            return None
        total *= len(dimension.values)
    return total


def highest(space: Mapping[str, Dimension], key: str, own: float) -> float:
    """The largest value that `key` can take; `own` where it is not varied."""
    found = space.get(key)
    if found is None:
        return own
    return found.high if isinstance(found, Range) else max(float(value or 0) for value in found.values)


def grid(space: Mapping[str, Dimension]) -> list[Configuration]:
    """Every configuration of a space without ranges; the last hyper-parameter changes fastest."""
    values = [dimension.values for dimension in space.values() if isinstance(dimension, Choices)]
    if len(values) < len(space):
        raise ValueError("a range has no end: a grid needs lists")
    return [dict(zip(space, point, strict=True)) for point in product(*values)]


def draw(
    space: Mapping[str, Dimension], count: int, seed: int, *, evenly: bool = False
) -> list[Configuration]:
    """At most `count` different configurations at random, fewer where the space holds no more.

    Args:
        evenly: From a Sobol sequence, which covers every dimension evenly. Either way a larger `count` only adds to the
        list.
    """
    points = (_sobol if evenly else _uniform)(len(space), count * _DRAWS_PER_CONFIGURATION, seed)
    found: list[Configuration] = []
    for point in points:
        if len(found) == count:
            break
        pairs = zip(space.items(), point, strict=True)
        configuration = {key: _value(key, each, share) for (key, each), share in pairs}
        if configuration not in found:
            found.append(configuration)
    return found


def contains(space: Mapping[str, Dimension], configuration: Mapping[str, Any]) -> bool:
    """Whether `configuration` has a value inside the space for all that is varied."""
    return all(key in configuration and _inside(each, configuration[key]) for key, each in space.items())


def configured(entry: FailingPrompt, configuration: Mapping[str, Value]) -> FailingPrompt:
    """`entry` with the configuration's hyper-parameters, which were checked when the space was read, in place of its own."""
    trained = entry.hyperparameters.model_copy(update=dict(configuration))
    return entry.model_copy(update={"hyperparameters": trained})


def _uniform(dimensions: int, count: int, seed: int) -> Iterator[Sequence[float]]:
    generator = random.Random(seed)
    for _ in range(count):
        yield [generator.random() for _ in range(dimensions)]


def _sobol(dimensions: int, count: int, seed: int) -> Iterator[Sequence[float]]:
    """A Sobol sequence scrambled after Owen 1998 (Scrambling Sobol' and Niederreiter-Xing Points, Journal of Complexity)."""
    from scipy.stats import qmc  # this import takes a second

    points = qmc.Sobol(dimensions, scramble=True, rng=seed).random_base2(math.ceil(math.log2(count)))
    yield from points[:count].tolist()


def _value(key: str, dimension: Dimension, share: float) -> Value:
    """The value at `share`, 0 to 1, of a dimension."""
    if isinstance(dimension, Choices):
        return dimension.values[int(share * len(dimension.values))]
    low, high = math.log(dimension.low), math.log(dimension.high)
    value = math.exp(low + share * (high - low))
    return round(value) if key in WHOLE else min(max(_rounded(value), dimension.low), dimension.high)


def _inside(dimension: Dimension, value: Any) -> bool:
    if isinstance(dimension, Choices):
        return value in dimension.values
    return isinstance(value, int | float) and dimension.low <= value <= dimension.high


def _rounded(value: float) -> float:
    """Three significant digits: what people write, and read back exactly."""
    return float(f"{value:.3g}")
