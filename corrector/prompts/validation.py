"""From located values to a batch: every key of every entry is checked, whatever else is wrong."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from corrector.errors import UserError
from corrector.prompts.batch import CorrectionBatch, FailingPrompt, normalised, prompt_conflicts, slug
from corrector.prompts.evaluation import EvaluationSettings, GateThresholds
from corrector.prompts.explanations import SCOPES, explain, log_unknown_key
from corrector.prompts.folders import check_exemplar_folder
from corrector.prompts.hyperparameters import (
    Conflict,
    HyperParameters,
    field_adapter,
    hyperparameter_conflicts,
)
from corrector.prompts.mistakes import MistakeLog
from corrector.prompts.places import Node, Place, quoted
from corrector.prompts.schema import HYPERPARAMETER_KEYS, PROMPT_KEYS
from corrector.prompts.search import SearchSettings
from corrector.prompts.search_section import read_dimension, search_conflicts

_NEEDED = {
    "prompt": "write the prompt at which the base fails",
    "exemplars": "name a folder of good images of the prompt",
}


def validate_batch(root: Node, path: Path, roots: Sequence[Path], log: MistakeLog) -> CorrectionBatch:
    """The batch that `root` describes.

    Args:
        path: The batch file, absolute.
        roots: Folders besides its own in which exemplars may lie.
        log: What reading has found wrong so far.

    Raises:
        BatchErrors: Everything that is wrong, with what `log` held before.
    """
    return _Validation(path, roots, log).batch(root)


class _Validation:
    def __init__(self, path: Path, roots: Sequence[Path], log: MistakeLog) -> None:
        self._path = path
        self._roots = roots
        self._log = log
        self._defaults: dict[str, Any] = {}
        self._default_places: dict[str, Place] = {}
        self._unusable_defaults: set[str] = set()
        self._places: dict[str, dict[str, Place]] = {}
        self._names: dict[str, tuple[Place, int]] = {}
        self._texts: dict[str, tuple[Place, int, str]] = {}

    def batch(self, root: Node) -> CorrectionBatch:
        keys = self._mapping(root, "", 'a mapping with the list of prompts under "prompts"')
        if keys is None:
            raise self._log.failure()
        misspelt = self._unknown_keys(keys, "")
        sections: dict[str, Any] = self._values(CorrectionBatch, keys, ("base",), "")
        self._read_defaults(keys)
        for name, model in (("evaluation", EvaluationSettings), ("gate", GateThresholds)):
            nodes, _ = self._section(keys, name, name)
            sections[name] = self._values(model, nodes, SCOPES[name], f"{name}.")
        sections["search"] = self._search(keys)
        prompts = self._entries(root, keys, misspelt)
        if not self._log.errors:
            batch = CorrectionBatch(**sections, prompts=tuple(prompts), path=self._path, places=self._places)
            if "search" in keys:
                for field, message in search_conflicts(batch.search, batch.prompts, batch.evaluation.images):
                    self._log.errors.append(batch.search_mistake(field, message))
        if self._log.errors:
            raise self._log.failure()
        return batch

    def _read_defaults(self, keys: Mapping[str, Node]) -> None:
        nodes, misspelt = self._section(keys, "defaults", "defaults")
        self._default_places = {key: node.place for key, node in nodes.items()}
        self._defaults = self._values(HyperParameters, nodes, HYPERPARAMETER_KEYS, "defaults.")
        self._unusable_defaults = misspelt | (nodes.keys() - self._defaults.keys())
        effective = {**_field_defaults(HyperParameters), **self._defaults}
        for conflict in hyperparameter_conflicts(_without(effective, self._unusable_defaults)):
            self._log_conflict(conflict, nodes, keys["defaults"].place, "defaults.")

    def _search(self, keys: Mapping[str, Node]) -> dict[str, Any]:
        nodes, _ = self._section(keys, "search", "search")
        flat = [key for key in SCOPES["search"] if key != "space"]
        values = self._values(SearchSettings, nodes, flat, "search.")
        space, _ = self._section(nodes, "space", "search.space")
        if "space" in nodes:
            known = {key: node for key, node in space.items() if key in SCOPES["search.space"]}
            values["space"] = {
                key: read_dimension(key, node, self._log)
                for key, node in known.items()
                if not node.incomplete
            }
        if "search" in keys:
            places = {f"search.{key}": node.place for key, node in nodes.items()}
            places |= {f"search.space.{key}": node.place for key, node in space.items()}
            self._places[""] = {"search": keys["search"].place, **places}
        return values

    def _section(
        self, keys: Mapping[str, Node], name: str, scope: str
    ) -> tuple[Mapping[str, Node], set[str]]:
        """The keys of a section, and those of its scope for which others were probably misspelt."""
        node = keys.get(name)
        if node is None or node.value is None:
            return {}, set()
        nodes = self._mapping(node, scope, "a mapping of settings") or {}
        return nodes, self._unknown_keys(nodes, scope)

    def _entries(self, root: Node, keys: Mapping[str, Node], misspelt: set[str]) -> list[FailingPrompt]:
        node = keys.get("prompts")
        if node is None:
            if "prompts" not in misspelt:
                self._log.add(root.place, "prompts", "missing; list the failing prompts here")
            return []
        if not isinstance(node.value, tuple):
            self._log.add(node.place, "prompts", f"expected a list of prompts, found {quoted(node.value)}")
            return []
        if not node.value and not node.incomplete:
            self._log.add(node.place, "prompts", "no prompts; list at least one")
        entries = [self._entry(entry, index) for index, entry in enumerate(node.value)]
        return [entry for entry in entries if entry is not None]

    def _entry(self, entry: Node, index: int) -> FailingPrompt | None:
        nodes = self._mapping(entry, f"prompts[{index}]", 'a mapping with "prompt" and "exemplars"')
        if nodes is None:
            return None
        misspelt = self._unknown_keys(nodes, "prompts")
        own = self._values(FailingPrompt, nodes, PROMPT_KEYS, "")
        overrides = self._values(HyperParameters, nodes, HYPERPARAMETER_KEYS, "")
        unusable = misspelt | (nodes.keys() - own.keys() - overrides.keys())
        for key, remedy in _NEEDED.items():
            if key not in nodes and key not in misspelt:
                self._log.add(entry.place, key, f"missing in prompts[{index}]; {remedy}")
        for conflict in self._conflicts(own, overrides, unusable):
            self._log_conflict(conflict, nodes, entry.place, "")
        self._check_texts(nodes, own, index)
        if "exemplars" in own:
            try:
                check_exemplar_folder(own["exemplars"], self._path.parent, self._roots)
            except UserError as error:
                self._log.add(nodes["exemplars"].place, "exemplars", str(error))
        if self._log.errors:
            return None
        prompt = FailingPrompt(**own, hyperparameters=HyperParameters(**{**self._defaults, **overrides}))
        own_places = {key: node.place for key, node in nodes.items()}
        self._places[prompt.name] = {**self._default_places, **own_places, "": entry.place}
        return prompt

    def _conflicts(
        self, own: Mapping[str, Any], overrides: Mapping[str, Any], unusable: set[str]
    ) -> list[Conflict]:
        """The contradictions of an entry; those among the defaults alone were reported with them."""
        defaults = _without(_field_defaults(HyperParameters), self._unusable_defaults)
        trained = _without({**defaults, **self._defaults, **overrides}, unusable)
        described = _without({**_field_defaults(FailingPrompt), **own}, unusable)
        return [
            *(each for each in hyperparameter_conflicts(trained) if overrides.keys() & set(each.fields)),
            *prompt_conflicts({**described, **trained}),
        ]

    def _check_texts(self, nodes: Mapping[str, Node], own: Mapping[str, Any], index: int) -> None:
        """Names are unique, and so is every text to be corrected: two adapters would claim it."""
        claims = [("prompt", nodes["prompt"], own["prompt"])] if "prompt" in own else []
        for item, text in enumerate(own.get("paraphrases", ())):
            claims.append((f"paraphrases[{item}]", nodes["paraphrases"].item(item), text))
        repeated = False
        for field, node, text in claims:
            place, other, role = self._texts.setdefault(normalised(text), (node.place, index, field))
            if other != index:
                repeated = repeated or field == "prompt"
                what = "the prompt" if role == "prompt" else "a paraphrase"
                message = f"{quoted(text)} is also {what} in line {place.line}; a prompt has one correction"
                self._log.add(node.place, field, message)
        if "name" not in own and ("name" in nodes or "prompt" not in own):
            return
        name = own.get("name") or slug(own["prompt"])
        where = nodes["name" if "name" in own else "prompt"].place
        first, other = self._names.setdefault(name, (where, index))
        if other != index and not (repeated and "name" not in own):
            remedy = "choose another" if "name" in own else "give one of them a name of its own"
            also = f"{quoted(name)} is also the name of the prompt in line {first.line}"
            self._log.add(where, "name", f"{also}; {remedy}")

    def _mapping(self, node: Node, field: str, expected: str) -> dict[str, Node] | None:
        if isinstance(node.value, dict):
            return node.value
        self._log.add(node.place, field, f"expected {expected}, found {quoted(node.value)}")
        return None

    def _unknown_keys(self, nodes: Mapping[str, Node], scope: str) -> set[str]:
        """Log the keys that `scope` does not have; the keys that were probably meant."""
        unknown = [(key, node) for key, node in nodes.items() if key not in SCOPES[scope]]
        meant = {log_unknown_key(self._log, node.place, key, scope) for key, node in unknown}
        return {key for key in meant if key is not None}

    def _values(
        self, model: type[BaseModel], nodes: Mapping[str, Node], keys: Iterable[str], prefix: str
    ) -> dict[str, Any]:
        """The valid values among `keys`; what pydantic says of the others is logged at their lines."""
        values = {}
        for key in keys:
            if (node := nodes.get(key)) is None or node.incomplete:
                continue
            try:
                values[key] = field_adapter(model, key).validate_python(node.plain(), strict=node.typed)
            except ValidationError as error:
                for details in error.errors():
                    number = next((part for part in details["loc"] if isinstance(part, int)), None)
                    wrong = node.item(number)
                    message = explain(details, model, key, wrong, is_item=number is not None)
                    field = key if number is None else f"{key}[{number}]"
                    self._log.add(wrong.place, prefix + field, message)
        return values

    def _log_conflict(
        self, conflict: Conflict, nodes: Mapping[str, Node], otherwise: Place, prefix: str
    ) -> None:
        blamed = next((nodes[key].item(conflict.item) for key in conflict.fields if key in nodes), None)
        place = otherwise if blamed is None else blamed.place
        self._log.add(place, prefix + conflict.field, conflict.message)


def _field_defaults(model: type[BaseModel]) -> dict[str, Any]:
    fields = model.model_fields.items()
    return {key: field.default for key, field in fields if field.default is not PydanticUndefined}


def _without(values: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}
