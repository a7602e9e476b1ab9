"""A batch as the rest of the system sees it: failing prompts with everything that their corrections need."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from corrector.prompts.evaluation import EvaluationSettings, GateThresholds
from corrector.prompts.hyperparameters import Conflict, HyperParameters
from corrector.prompts.mistakes import BatchError
from corrector.prompts.places import Place, quoted
from corrector.prompts.search import SearchSettings

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
_NAME_LENGTH = 64
_WORK_FORMAT = 1


def _single_line(text: str) -> str:
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise PydanticCustomError(
                "unprintable",
                "holds a line break or control character ({code}); write it on one line",
                {"code": f"U+{ord(character):04X}"},
            )
    return text


PromptText = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000), AfterValidator(_single_line)
]
Reference = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1024), AfterValidator(_single_line)
]
Owner = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_single_line)
]


def slug(prompt: str) -> str:
    """A name for a prompt: lower-case ASCII letters, digits and hyphens, at most 64 characters.

    A prompt that is too long, or has no ASCII letters, gets eight digits of its SHA-256 to keep names apart.
    """
    ascii_text = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")
    if words and len(words) <= _NAME_LENGTH:
        return words
    digest = hashlib.sha256(prompt.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{words[: _NAME_LENGTH - 9].strip('-') or 'prompt'}-{digest}"


def normalised(prompt: str) -> str:
    """What two prompts share that differ only in case and spacing."""
    return " ".join(prompt.casefold().split())


class FailingPrompt(BaseModel):
    """One prompt that the base gets wrong, and how to correct it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: PromptText = Field(description="The prompt at which the base fails.")
    name: str = Field(
        default_factory=lambda values: slug(values.get("prompt", "")),
        pattern=NAME_PATTERN,
        description="Name of the correction, its adapter and its folder: lower-case letters, digits, -, _; "
        "default: made from the prompt.",
    )
    exemplars: Reference = Field(
        description="Folder of good images of the prompt, relative to the batch file; inside that file's "
        "folder, the working directory or CORRECTOR_EXEMPLAR_ROOTS."
    )
    paraphrases: tuple[PromptText, ...] = Field(
        default=(),
        max_length=200,
        description="Other wordings of the prompt, to be corrected with it and evaluated with it.",
    )
    guard_prompts: tuple[PromptText, ...] = Field(
        default=(), max_length=200, description="Neighbouring prompts that work and must not change."
    )
    class_prompt: PromptText | None = Field(
        default=None, description='The prompt\'s class ("a person"), for preservation: prior.'
    )
    owner: Owner | None = Field(
        default=None, description="Who asked for the correction; shown in the registry."
    )
    priority: int = Field(default=0, ge=-1000, le=1000, description="Higher is corrected earlier.")
    hyperparameters: HyperParameters = Field(
        default=HyperParameters(), description="How the adapter is trained."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "FailingPrompt":
        for conflict in prompt_conflicts({**dict(self), **dict(self.hyperparameters)}):
            raise PydanticCustomError(
                "conflict", "{message}", {"message": f"{conflict.field}: {conflict.message}"}
            )
        return self

    def work_id(
        self,
        base_revision: str,
        exemplar_digests: Sequence[str],
        evaluation: EvaluationSettings,
        gate: GateThresholds,
    ) -> str:
        """SHA-256 in hexadecimal of all that determines the result: entries that share it are one work.

        Owner, priority and the exemplars' path do not count, nor does the order of the digests.

        Args:
            base_revision: Digest or commit of the base's weights.
            exemplar_digests: SHA-256 of every exemplar file.
            evaluation: How the result is compared.
            gate: How the result is judged.
        """
        content = {
            "format": _WORK_FORMAT,
            "base_revision": base_revision,
            "exemplars": sorted(exemplar_digests),
            "prompt": self.model_dump(mode="json", exclude={"owner", "priority", "exemplars"}),
            "evaluation": evaluation.model_dump(mode="json"),
            "gate": gate.model_dump(mode="json"),
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


class CorrectionBatch(BaseModel):
    """A whole batch file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Reference = Field(
        default="embedded",
        description='The base: "embedded", a folder in diffusers\' format, a hub id (owner/name@revision), a single '
        ".safetensors file, or an s3:// URL of such a folder or file.",
    )
    prompts: tuple[FailingPrompt, ...] = Field(
        min_length=1, description="The failing prompts, in the order of the file."
    )
    evaluation: EvaluationSettings = Field(
        default=EvaluationSettings(), description="How results are compared."
    )
    gate: GateThresholds = Field(default=GateThresholds(), description="What a result must reach.")
    search: SearchSettings = Field(
        default=SearchSettings(), description="How hyper-parameters are searched; read by jobs.search alone."
    )
    path: Path = Field(description="The batch file, as an absolute path.")
    places: Mapping[str, Mapping[str, Place]] = Field(
        default={},
        exclude=True,
        repr=False,
        description="Where each key of each prompt, by its name, was written; the empty key is the prompt, and "
        "under the empty name are the keys of the search.",
    )

    def exemplar_folder(self, prompt: FailingPrompt) -> Path:
        """The prompt's exemplar folder as an absolute path."""
        return (self.path.parent / prompt.exemplars).absolute()

    def mistake(self, prompt: FailingPrompt, field: str, message: str) -> BatchError:
        """A mistake that only a later check can see, at the line where `field` was set for the prompt."""
        places = self.places.get(prompt.name, {})
        place = places.get(field) or places.get("") or Place(str(self.path), None)
        return BatchError(place.file, place.line, field, message)

    def search_mistake(self, field: str, message: str) -> BatchError:
        """The same for a key of the search, "search.space.rank"; where it was not written, at the section's line."""
        places = self.places.get("", {})
        place = places.get(field) or places.get("search") or Place(str(self.path), None)
        return BatchError(place.file, place.line, field, message)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is allowed and yet unlikely to be meant: settings under which no result can pass the gate."""
        notes = []
        if self.evaluation.images < self.gate.min_images:
            notes.append(
                f"evaluation.images is {self.evaluation.images}, gate.min_images {self.gate.min_images}: "
                "no correction can become a candidate"
            )
        if 1 / (self.evaluation.permutations + 1) >= self.gate.max_p:
            notes.append(
                f"{self.evaluation.permutations} permutations cannot show a p below gate.max_p, "
                f"{self.gate.max_p:g}: no correction can become a candidate; "
                f"use at least {int(1 / self.gate.max_p)}"
            )
        if self.gate.require_guards:
            notes += [
                f"{prompt.name}: no guard prompts, and gate.require_guards: never a candidate"
                for prompt in self.prompts
                if not prompt.guard_prompts
            ]
        return tuple(notes)


def prompt_conflicts(values: Mapping[str, Any]) -> Iterator[Conflict]:
    """The contradictions among valid values of an entry and its hyper-parameters; absent ones pass."""
    yield from _preservation_conflicts(values)
    prompt = values.get("prompt")
    seen: dict[str, str] = {} if prompt is None else {normalised(prompt): "the prompt itself"}
    for key in ("paraphrases", "guard_prompts"):
        for item, text in enumerate(values.get(key) or ()):
            here = f"{key}[{item}]"
            other = seen.setdefault(normalised(text), here)
            if other != here:
                contradiction = key == "guard_prompts" and not other.startswith(key)
                remedy = "a guard prompt must not change, that one must" if contradiction else "remove one"
                yield Conflict((key,), f"{quoted(text)} is also {other}; {remedy}", item)


def _preservation_conflicts(values: Mapping[str, Any]) -> Iterator[Conflict]:
    preservation = values.get("preservation")
    if preservation == "guard" and values.get("guard_prompts") == ():
        yield Conflict(
            ("guard_prompts", "preservation"),
            "missing; name prompts near this one that work and must not change, or set preservation: none",
        )
    if preservation == "prior" and "class_prompt" in values and values["class_prompt"] is None:
        yield Conflict(
            ("class_prompt", "preservation"),
            'missing; preservation: prior draws images of it, for example of "a person"; name one, or use '
            "preservation: guard or none",
        )
