"""Contradictions among the settings of a search, or between them and a prompt's."""

from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from corrector.prompts.failing_prompt import FailingPrompt
from corrector.prompts.located_values import quoted
from corrector.prompts.search_settings import Choices, Range, SearchSettings
from corrector.prompts.search_space import dimensions, highest, size

Conflict = tuple[tuple[str, ...], str]
"""The keys that lead to what is to blame, below `search`; and the message."""


def search_conflicts(
    search: SearchSettings, prompts: Sequence[FailingPrompt], images: int
) -> Iterator[Conflict]:
    """Contradictions of valid settings of a search, among themselves or with those of a prompt.

    Args:
        images: Images of a whole evaluation, `evaluation.images`.
    """
    if not search.space:
        empty = "empty: nothing would be varied; name hyper-parameters, or run jobs.correct instead"
        yield ("space",), empty
        return
    if "first_images" in search.model_fields_set and search.first_images > images:
        more = "images at the first rung are more than a whole evaluation has"
        yield ("first_images",), f"{search.first_images} {more}, {images}"
    if not search.targets:
        yield ("targets",), "empty: nothing to aim at; name some, or remove the key"
    if len(search.targets) > 1 and search.sampler != "tpe":
        yield ("targets",), f"only tpe aims at several; the sampler is {search.sampler}: set sampler: tpe"
    if len(set(search.targets)) < len(search.targets):
        yield ("targets",), "one is there twice; remove it"
    if search.scope == "batch" and (found := list(_scope_conflicts(search, prompts))):
        yield from found
        return
    # Only the first prompt with a conflict: the others mostly repeat it.
    yield from next((found for entry in prompts if (found := list(_entry_conflicts(search, entry)))), ())


def _scope_conflicts(search: SearchSettings, prompts: Sequence[FailingPrompt]) -> Iterator[Conflict]:
    """Why the batch cannot be searched as a whole: a trial is one configuration, scored at the same steps."""
    if search.objective != "fid":
        yield ("scope",), f"a batch is searched as a whole by fid; the objective is {search.objective}"
    first = prompts[0]
    for key in dict.fromkeys(("steps", *search.space)):
        own = getattr(first.hyperparameters, key)
        others = [entry for entry in prompts[1:] if getattr(entry.hyperparameters, key) != own]
        if others:
            theirs = f"{others[0].name} {quoted(getattr(others[0].hyperparameters, key))}"
            message = f"the batch as a whole needs one {key} to begin with: {first.name} has {quoted(own)}, {theirs}"
            yield ("scope",), f"{message}; set it under defaults"
    if "preservation" in search.space:
        spaces = [dimensions({"preservation": search.space["preservation"]}, entry) for entry in prompts]
        if any(space != spaces[0] for space in spaces):
            yield (
                ("space", "preservation"),
                "its default differs among the prompts, some of which have no guard prompts or no class prompt; list values",
            )


def _entry_conflicts(search: SearchSettings, entry: FailingPrompt) -> Iterator[Conflict]:
    space = dimensions(search.space, entry)
    settings, total = entry.hyperparameters, size(space)
    if search.sampler == "grid" and total is None:
        ranges = [key for key, each in space.items() if isinstance(each, Range)]
        yield ("space", ranges[0]), "a range has no end: a grid needs lists; or set sampler: sobol"
    elif search.sampler == "grid" and total is not None and total > search.trials:
        yield ("trials",), f"the grid has {total} configurations; raise trials, or set sampler: sobol"
    most = round(highest(space, "steps", settings.steps))
    if search.max_steps is not None and search.max_steps < most:
        less = f"a budget of {search.max_steps} steps is less than the {most} of one trial ({entry.name})"
        yield ("max_steps",), less
    kept = space.get("preservation", Choices(values=(settings.preservation,)))
    if "preservation_weight" in space and kept == Choices(values=("none",)):
        nothing = "contradicts preservation: none, under which there is nothing to weigh"
        yield ("space", "preservation_weight"), f"{entry.name}: {nothing}"
    for key, dimension in space.items():
        for value in dimension.values if isinstance(dimension, Choices) else (dimension.low,):
            varied = {**dict(entry), "hyperparameters": {**dict(settings), key: value}}
            try:
                FailingPrompt.model_validate(varied)
            except ValidationError as failure:
                for error in failure.errors():
                    yield ("space", key), f"{quoted(value)} for {entry.name}: {error['msg']}"
