"""From located values to a batch: every key of every entry is checked, whatever else is wrong."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from corrector.errors import UserError
from corrector.prompts.batch import CorrectionBatch, FailingPrompt, normalised, prompt_conflicts, slug
from corrector.prompts.errors import ErrorLog, Place
from corrector.prompts.explanations import explain
from corrector.prompts.folders import check_exemplar_folder
from corrector.prompts.hyperparameters import Conflict, HyperParameters, hyperparameter_conflicts
from corrector.prompts.keys import SCOPES, log_unknown_key
from corrector.prompts.nodes import Node, quoted
from corrector.prompts.protocol import EvaluationSettings, GateThresholds
from corrector.prompts.schema import HYPERPARAMETER_KEYS, PROMPT_KEYS
from corrector.prompts.search import SearchSettings
from corrector.prompts.search_validation import check_search, read_space

_NEEDED = {
    "prompt": "write the prompt at which the base fails",
    "exemplars": "name a folder of good images of the prompt",
}


def validate_batch(root: Node, path: Path, roots: Sequence[Path], log: ErrorLog) -> CorrectionBatch:
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
    def __init__(self, path: Path, roots: Sequence[Path], log: ErrorLog) -> None:
        self._path = path
        self._roots = roots
        self._log = log
        self._defaults: dict[str, Any] = {}
        self._default_places: dict[str, Place] = {}
        self._places: dict[str, dict[str, Place]] = {}
        self._unusable_defaults: set[str] = set()
        self._names: dict[str, tuple[Place, int]] = {}
        self._prompts: dict[str, tuple[Place, int, str]] = {}

    def batch(self, root: Node) -> CorrectionBatch:
        keys = self._mapping(root, "", 'a mapping with the list of prompts under "prompts"')
        if keys is None:
            raise self._log.failure()
        misspelt = self._unknown_keys(keys, "")
        base = self._values(CorrectionBatch, keys, ("base",), "")
        self._read_defaults(keys)
        evaluation = self._section(keys, "evaluation", EvaluationSettings)
        gate = self._section(keys, "gate", GateThresholds)
        search = self._search(keys)
        prompts = self._entries(root, keys, misspelt)
        if "search" in keys and not self._log.errors:
            places, section = self._places[""], keys["search"].place
            images = evaluation.get("images", EvaluationSettings().images)
            check_search(SearchSettings(**search), prompts, images, places, section, self._log)
        if self._log.errors:
            raise self._log.failure()
        return CorrectionBatch(
            **base,
            evaluation=EvaluationSettings(**evaluation),
            gate=GateThresholds(**gate),
            search=SearchSettings(**search),
            prompts=tuple(prompts),
            path=self._path,
            places=self._places,
        )

    def _read_defaults(self, keys: Mapping[str, Node]) -> None:
        nodes = self._section_nodes(keys, "defaults")
        self._default_places = {key: node.place for key, node in nodes.items()}
        misspelt = self._unknown_keys(nodes, "defaults")
        self._defaults = self._values(HyperParameters, nodes, HYPERPARAMETER_KEYS, "defaults.")
        self._unusable_defaults = misspelt | (nodes.keys() - self._defaults.keys())
        effective = _without({**_field_defaults(HyperParameters), **self._defaults}, self._unusable_defaults)
        for conflict in hyperparameter_conflicts(effective):
            self._log_conflict(conflict, nodes, keys["defaults"].place, "defaults.")

    def _search(self, keys: Mapping[str, Node]) -> dict[str, Any]:
        nodes = self._section_nodes(keys, "search")
        self._unknown_keys(nodes, "search")
        flat = [key for key in SCOPES["search"] if key != "space"]
        values = self._values(SearchSettings, nodes, flat, "search.")
        places = {f"search.{key}": node.place for key, node in nodes.items()}
        if "space" in nodes:
            inside = self._section_nodes(nodes, "space", "search.space")
            self._unknown_keys(inside, "search.space")
            places |= {f"search.space.{key}": node.place for key, node in inside.items()}
            known = {key: node for key, node in inside.items() if key in SCOPES["search.space"]}
            values["space"] = read_space(known, _valid_hyperparameter, self._log)
        if "search" in keys:
            self._places[""] = {"search": keys["search"].place, **places}
        return values

    def _section(self, keys: Mapping[str, Node], name: str, model: type[BaseModel]) -> dict[str, Any]:
        nodes = self._section_nodes(keys, name)
        self._unknown_keys(nodes, name)
        return self._values(model, nodes, SCOPES[name], f"{name}.")

    def _section_nodes(self, keys: Mapping[str, Node], name: str, field: str = "") -> dict[str, Node]:
        node = keys.get(name)
        if node is None or node.value is None:
            return {}
        return self._mapping(node, field or name, "a mapping of settings") or {}

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
        self._check_together(entry, nodes, own, overrides, unusable)
        self._check_against_others(nodes, own, index)
        if "exemplars" in own:
            try:
                check_exemplar_folder(own["exemplars"], self._path.parent, self._roots)
            except UserError as error:
                self._log.add(nodes["exemplars"].place, "exemplars", str(error))
        if self._log.errors:
            return None
        trained = HyperParameters(**{**self._defaults, **overrides})
        prompt = FailingPrompt(**own, hyperparameters=trained)
        own_places = {key: node.place for key, node in nodes.items()}
        self._places[prompt.name] = {**self._default_places, **own_places, "": entry.place}
        return prompt

    def _check_together(
        self,
        entry: Node,
        nodes: dict[str, Node],
        own: dict[str, Any],
        overrides: dict[str, Any],
        unusable: set[str],
    ) -> None:
        from_defaults = _without(_field_defaults(HyperParameters), self._unusable_defaults)
        trained = _without({**from_defaults, **self._defaults, **overrides}, unusable)
        for conflict in hyperparameter_conflicts(trained):
            if any(key in overrides for key in conflict.fields):
                self._log_conflict(conflict, nodes, entry.place, "")
        described = _without({**_field_defaults(FailingPrompt), **own}, unusable)
        for conflict in prompt_conflicts({**described, **trained}):
            self._log_conflict(conflict, nodes, entry.place, "")

    def _check_against_others(self, nodes: dict[str, Node], own: dict[str, Any], index: int) -> None:
        """Names are unique, and so is every text to be corrected: two adapters would claim it."""
        claims = [("prompt", nodes["prompt"], own["prompt"])] if "prompt" in own else []
        for item, text in enumerate(own.get("paraphrases", ())):
            claims.append((f"paraphrases[{item}]", _item(nodes["paraphrases"], item), text))
        repeated = False
        for field, node, text in claims:
            place, other, role = self._prompts.setdefault(normalised(text), (node.place, index, field))
            if other != index:
                repeated = repeated or field == "prompt"
                what = "the prompt" if role == "prompt" else "a paraphrase"
                self._log.add(
                    node.place,
                    field,
                    f"{quoted(text)} is also {what} in line {place.line}; a prompt has one correction",
                )
        if "name" not in own and ("name" in nodes or "prompt" not in own):
            return
        name = own.get("name") or slug(own["prompt"])
        where = nodes["name" if "name" in own else "prompt"].place
        first, other = self._names.setdefault(name, (where, index))
        if other != index and not (repeated and "name" not in own):
            remedy = "choose another" if "name" in own else "give one of them a name of its own"
            self._log.add(
                where, "name", f"{quoted(name)} is also the name of the prompt in line {first.line}; {remedy}"
            )

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
        """The valid values among `keys`; the others are logged."""
        values = {}
        for key in keys:
            if (node := nodes.get(key)) is None or node.incomplete:
                continue
            try:
                values[key] = _adapter(model, key).validate_python(node.plain(), strict=node.typed)
            except ValidationError as error:
                for details in error.errors():
                    self._log_value(details, model, key, node, prefix)
        return values

    def _log_value(
        self, details: ErrorDetails, model: type[BaseModel], key: str, node: Node, prefix: str
    ) -> None:
        item = next((part for part in details["loc"] if isinstance(part, int)), None)
        if item is None:
            self._log.add(node.place, prefix + key, explain(details, model, key, node))
        else:
            part = _item(node, item)
            field = f"{prefix}{key}[{item}]"
            self._log.add(part.place, field, explain(details, model, key, part, is_item=True))

    def _log_conflict(
        self, conflict: Conflict, nodes: Mapping[str, Node], otherwise: Place, prefix: str
    ) -> None:
        node = next((nodes[key] for key in conflict.fields if key in nodes), None)
        place = otherwise if node is None else node.place
        if node is not None and conflict.item is not None:
            place = _item(node, conflict.item).place
        self._log.add(place, prefix + conflict.field, conflict.message)


@cache
def _adapter(model: type[BaseModel], key: str) -> TypeAdapter[Any]:
    """A validator of one field alone, so that one wrong value hides no other."""
    field = model.model_fields[key]
    constrained: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return TypeAdapter(constrained)


def _valid_hyperparameter(key: str, value: object, strict: bool) -> Any:
    return _adapter(HyperParameters, key).validate_python(value, strict=strict)


@cache
def _field_defaults(model: type[BaseModel]) -> Mapping[str, Any]:
    fields = model.model_fields.items()
    return MappingProxyType(
        {key: field.default for key, field in fields if field.default is not PydanticUndefined}
    )


def _item(node: Node, item: int) -> Node:
    return node.value[item] if isinstance(node.value, tuple) else node


def _without(values: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}
