"""One failing prompt of a batch: its texts, its exemplars and its hyper-parameters."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_serializer,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from corrector.errors import UserError
from corrector.prompts.evaluation_settings import EvaluationSettings
from corrector.prompts.exemplar_references import shown
from corrector.prompts.field_errors import conflict, located, message_error, raise_together, validated_with
from corrector.prompts.folders import check_exemplars
from corrector.prompts.gate_thresholds import GateThresholds
from corrector.prompts.hyperparameters import HyperParameters
from corrector.prompts.located_values import quoted
from corrector.values import normalised, visible_text

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
_NAME_LENGTH = 64
_Path = tuple[int | str, ...]
_WORK_FORMAT = 1
_SAME_WORDS = "punctuation and the form of letters make no other prompt"


def _single_line(text: str) -> str:
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            code = f"U+{ord(character):04X}"
            raise message_error(f"holds a line break or control character ({code}); write it on one line")
    return text


def _visible(text: object) -> object:
    return visible_text(text) if isinstance(text, str) else text


PromptText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=1000),
    AfterValidator(_single_line),
    BeforeValidator(_visible),
]
"""In NFC, without invisible characters: what tokenizers read is what people see."""
Reference = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1024), AfterValidator(_single_line)
]
Owner = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(_single_line),
    BeforeValidator(_visible),
]
ExemplarFit = Literal["crop", "pad"]
"""How an exemplar becomes a square: its sides are cropped off, or bars are added."""


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


_LISTS = ("paraphrases", "guard_prompts", "hard_negatives")
_UNLIKE = {
    "guard_prompts": "a guard prompt must not change",
    "hard_negatives": "a hard negative must not be corrected",
}


class FailingPrompt(BaseModel):
    """A failing prompt, with its own hyper-parameters where they differ from the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    prompt: PromptText
    """The prompt at which the base fails."""
    name: str = Field(default_factory=lambda values: slug(values.get("prompt", "")), pattern=NAME_PATTERN)
    """Name of the correction, its adapter and its folder: lower-case letters, digits, -, _; default: made from the
    prompt."""
    exemplars: Reference = Field(repr=False)
    """Good images of the prompt: a folder or an archive (.zip, .tar, .tar.gz), relative to the batch file, and inside
    that file's folder, the working directory or CORRECTOR_EXEMPLAR_ROOTS; an s3:// URL of either; or an https:// URL
    of an archive."""
    exemplar_fit: ExemplarFit = "crop"
    """How exemplars that are not square become so: "crop" keeps the centre, "pad" keeps all and adds bars in the colour of
    the edges, which training can learn."""
    paraphrases: tuple[PromptText, ...] = Field(default=(), max_length=200)
    """Other wordings of the prompt, to be corrected with it and evaluated with it."""
    guard_prompts: tuple[PromptText, ...] = Field(default=(), max_length=200)
    """Neighbouring prompts that work and must not change."""
    hard_negatives: tuple[PromptText, ...] = Field(default=(), max_length=200)
    """Prompts in almost the same words that ask for another picture. The endpoint's router tells by them and by the
    paraphrases what the correction is for, best by twenty of each (`python -m jobs.draft` drafts them); the evaluation
    tries the adapter on some."""
    class_prompt: PromptText | None = None
    """The prompt's class ("a person"), for preservation: prior."""
    owner: Owner | None = None
    """Who asked for the correction; shown in the registry."""
    priority: int = Field(default=0, ge=-1000, le=1000)
    """Higher is corrected earlier."""
    hyperparameters: HyperParameters = Field(default=HyperParameters(), validate_default=True)
    """How the adapter is trained."""

    @field_validator("exemplars")
    @classmethod
    def _source_of_images(cls, exemplars: str, info: ValidationInfo) -> str:
        """Checked for a batch file only: the validation's context is its folder, and the settings."""
        if info.context is not None:
            folder, settings = info.context
            try:
                check_exemplars(
                    exemplars, folder, settings.exemplar_roots, allow_private=settings.allow_private_urls
                )
            except UserError as error:
                raise message_error(str(error)) from None
        return exemplars

    @field_serializer("exemplars")
    def _without_credentials(self, exemplars: str) -> str:
        """Records and reports hold an address without its query, which may be a signature."""
        return shown(exemplars)

    @field_validator(*_LISTS)
    @classmethod
    def _different_texts(cls, texts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        key = str(info.field_name)
        seen = {normalised(info.data["prompt"]): "the prompt itself"} if "prompt" in info.data else {}
        for before in _LISTS[: _LISTS.index(key)]:
            for item, text in enumerate(info.data.get(before, ())):
                seen.setdefault(normalised(text), f"{before}[{item}]")
        errors = []
        for item, text in enumerate(texts):
            here = f"{key}[{item}]"
            if (other := seen.setdefault(normalised(text), here)) != here:
                corrected = not other.startswith(("guard_prompts", "hard_negatives", key))
                remedy = f"{_UNLIKE[key]}, that one must" if corrected and key in _UNLIKE else "remove one"
                errors.append(located(message_error(f"{quoted(text)} is also {other}; {remedy}"), item))
        raise_together(errors)
        return texts

    @field_validator("hyperparameters", mode="wrap")
    @classmethod
    def _preserves(cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        given = dict(value) if isinstance(value, Mapping | HyperParameters) else {}
        preservation = given.get("preservation", "guard")
        errors = []
        if preservation == "guard" and info.data.get("guard_prompts") == ():
            message = (
                "missing; name prompts near this one that work and must not change, or set preservation: none"
            )
            errors.append(located(conflict(message, "guard_prompts", "preservation")))
        if preservation == "prior" and info.data.get("class_prompt", "") is None:
            message = (
                'missing; preservation: prior draws images of it, for example of "a person"; name one, or use '
                "preservation: guard or none"
            )
            errors.append(located(conflict(message, "class_prompt", "preservation")))
        return validated_with(handler, value, errors)

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
        uncounted = {"owner", "priority", "exemplars"}
        # Work that was finished before these keys existed keeps its id.
        if self.exemplar_fit == "crop":
            uncounted.add("exemplar_fit")
        if not self.hard_negatives:
            uncounted.add("hard_negatives")
        content = {
            "format": _WORK_FORMAT,
            "base_revision": base_revision,
            "exemplars": sorted(exemplar_digests),
            "prompt": self.model_dump(mode="json", exclude=uncounted),
            "evaluation": evaluation.model_dump(mode="json"),
            "gate": gate.model_dump(mode="json"),
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


PROMPT_KEYS = tuple(name for name in FailingPrompt.model_fields if name != "hyperparameters")
HYPERPARAMETER_KEYS = tuple(HyperParameters.model_fields)


def repeated_texts(entries: Sequence[Any]) -> Iterator[InitErrorDetails]:
    """Errors for texts and names that two prompts share: two adapters would claim them.

    Args:
        entries: Prompts, or the values of a file, valid or not.
    """
    texts: dict[str, _Path] = {}
    names: dict[str, _Path] = {}
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping | FailingPrompt):
            continue
        values = dict(entry)
        paraphrases = values.get("paraphrases", ())
        claims: list[tuple[_Path, Any]] = [((index, "prompt"), values.get("prompt"))]
        if isinstance(paraphrases, list | tuple):
            claims += [((index, "paraphrases", item), text) for item, text in enumerate(paraphrases)]
        repeated = False
        for where, text in claims:
            if not isinstance(text, str) or not text.strip():
                continue
            first = texts.setdefault(normalised(text), where)
            if first[0] != index:
                repeated = repeated or where[1] == "prompt"
                role = "the prompt" if first[1] == "prompt" else "a paraphrase"
                same = _spelt(text) == _spelt(_at(entries, first))
                remedy = "a prompt has one correction"
                yield _repeated(where, text, role, first, remedy if same else f"{_SAME_WORDS}, and {remedy}")
        prompt, given = values.get("prompt"), "name" in values
        name = values["name"] if given else slug(prompt) if isinstance(prompt, str) else ""
        if isinstance(name, str) and re.fullmatch(NAME_PATTERN, name) and not (repeated and not given):
            first = names.setdefault(name, (index, "name" if given else "prompt"))
            if first[0] != index:
                remedy = "choose another" if given else "give one of them a name of its own"
                yield _repeated((index, "name"), name, "the name of the prompt", first, remedy)


def _spelt(text: str) -> str:
    """`text` without differences that a reader takes for none."""
    return " ".join(visible_text(text).casefold().split())


def _at(entries: Sequence[Any], where: _Path) -> str:
    """The text at `where`."""
    found = dict(entries[int(where[0])])[where[1]]
    return str(found if len(where) == 2 else found[where[2]])


def _repeated(where: _Path, text: str, role: str, first: _Path, remedy: str) -> InitErrorDetails:
    context = {"text": quoted(text), "role": role, "first": first, "remedy": remedy}
    error = PydanticCustomError(
        "repeated", "{text} is also {role} in prompts[" + f"{first[0]}]" + "; {remedy}", context
    )
    return located(error, *where)
