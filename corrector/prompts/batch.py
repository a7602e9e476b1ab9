"""CorrectionBatch: the contents of a batch file, checked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SkipValidation,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from corrector.prompts.evaluation_settings import EvaluationSettings
from corrector.prompts.failing_prompt import FailingPrompt, Reference, repeated_texts
from corrector.prompts.field_errors import located, message_error, raise_together, validated_with
from corrector.prompts.gate_thresholds import GateThresholds
from corrector.prompts.hyperparameters import HyperParameters
from corrector.prompts.located_values import Node, Place
from corrector.prompts.look_shares import look_shares
from corrector.prompts.mistakes import BatchError
from corrector.prompts.search_conflicts import search_conflicts
from corrector.prompts.search_settings import SearchSettings
from corrector.values import invisible_characters

_TEXTS = ("prompt", "paraphrases", "guard_prompts", "hard_negatives", "class_prompt", "owner")


class CorrectionBatch(BaseModel):
    """Prompts that a text-to-image base gets wrong, and how to correct each."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    base: Reference = "embedded"
    """The base: "embedded", a folder in diffusers' format, a hub id (owner/name@revision), a single .safetensors
    file, or an s3:// URL of such a folder or file."""
    defaults: HyperParameters = HyperParameters()
    """Hyper-parameters of all prompts, unless a prompt has its own."""
    prompts: tuple[FailingPrompt, ...] = Field(min_length=1)
    """The failing prompts; or the name of a CSV or JSONL file that lists them."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How results are compared."""
    gate: GateThresholds = GateThresholds()
    """What a result must reach to become a candidate."""
    search: SearchSettings = SearchSettings()
    """What jobs.search tries, and how it chooses; jobs.correct does not read it."""
    path: Path
    """The batch file, as an absolute path."""
    written: SkipValidation[Node | None] = Field(default=None, exclude=True, repr=False)
    """The file's values with their places."""

    @field_validator("prompts", mode="wrap")
    @classmethod
    def _one_correction_a_text(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        repeated = repeated_texts(value) if isinstance(value, list | tuple) else ()
        return validated_with(handler, value, repeated)

    @field_validator("search")
    @classmethod
    def _search_fits_the_prompts(cls, search: SearchSettings, info: ValidationInfo) -> SearchSettings:
        if "prompts" in info.data and "evaluation" in info.data:
            conflicts = search_conflicts(search, info.data["prompts"], info.data["evaluation"].images)
            raise_together(located(message_error(message), *where) for where, message in conflicts)
        return search

    def exemplar_folder(self, prompt: FailingPrompt) -> Path:
        """The prompt's exemplar folder as an absolute path."""
        return (self.path.parent / prompt.exemplars).absolute()

    def mistake(self, prompt: FailingPrompt, field: str, message: str) -> BatchError:
        """A mistake that a later check found, at the line where `field` was set for the prompt."""
        index = [each.name for each in self.prompts].index(prompt.name)
        return self._mistake(
            field, message, ("prompts", index, field), ("defaults", field), ("prompts", index)
        )

    def search_mistake(self, field: str, message: str) -> BatchError:
        """A mistake in a key of the search, "search.space.rank", at its line, else at the section's."""
        return self._mistake(field, message, tuple(field.split(".")), ("search",))

    def _mistake(self, field: str, message: str, *paths: tuple[str | int, ...]) -> BatchError:
        """At the first of `paths` that the file has."""
        nodes = [self.written.get(path) for path in paths] if self.written else []
        place = next((node.place for node in nodes if node), Place(str(self.path), None))
        return BatchError(place.file, place.line, field, message)

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings: invisible characters that were left out of texts, and settings under which no result can pass the gate."""
        notes = [*_left_out(self.written)] if self.written else []
        if self.evaluation.images < self.gate.min_images:
            notes.append(
                f"evaluation.images is {self.evaluation.images}, gate.min_images {self.gate.min_images}: "
                "no correction can become a candidate"
            )
        most = self.gate.max_p * max(look_shares(self.evaluation, self.gate).values())
        if 1 / (self.evaluation.permutations + 1) >= most:
            notes.append(
                f"{self.evaluation.permutations} permutations cannot show a p below {most:.2g}, the largest part of "
                f"gate.max_p that a look may spend: no correction can become a candidate; use at least {int(1 / most)}"
            )
        if self.gate.min_grade == "fixed" and self.evaluation.judge is None:
            notes.append(
                "gate.min_grade is fixed, and evaluation.judge names no judge of images: "
                "no correction can become a candidate"
            )
        if self.gate.require_guards:
            notes += [
                f"{prompt.name}: no guard prompts, and gate.require_guards: never a candidate"
                for prompt in self.prompts
                if not prompt.guard_prompts
            ]
        return tuple(notes)


def _left_out(root: Node) -> Iterator[str]:
    """A note for every text of a prompt that holds invisible characters."""
    prompts = root.value.get("prompts") if isinstance(root.value, dict) else None
    for entry in prompts.value if prompts and isinstance(prompts.value, tuple) else ():
        for key in _TEXTS:
            node = entry.get((key,))
            for text in node.value if node and isinstance(node.value, tuple) else (node,):
                if text and isinstance(text.value, str) and (found := invisible_characters(text.value)):
                    place = f"{text.place.file}:{text.place.line}"
                    yield f"{place}: {key}: left out {', '.join(found)}, which nobody sees"
