"""From located values to a batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from corrector.prompts.batch import CorrectionBatch
from corrector.prompts.explanations import log_errors, log_unknown_key
from corrector.prompts.failing_prompt import HYPERPARAMETER_KEYS
from corrector.prompts.mistakes import MistakeLog
from corrector.prompts.places import Node

_NOT_IN_FILES = ("path", "written")
"""Fields of the model that a file cannot set."""


def validate_batch(root: Node, path: Path, roots: Sequence[Path], log: MistakeLog) -> CorrectionBatch:
    """The batch that `root` describes.

    Args:
        path: The batch file, absolute.
        roots: Folders besides its own in which exemplars may lie.
        log: What reading has found wrong so far.

    Raises:
        BatchErrors: Everything that is wrong, with what `log` held before.
    """
    for key in _NOT_IN_FILES:
        if node := root.get((key,)):
            log_unknown_key(log, node.place, (key,))
    try:
        batch = CorrectionBatch.model_validate(
            _document(root, path), strict=True, context=(path.parent, roots)
        )
    except ValidationError as failure:
        log_errors(failure, root, log)
        raise log.failure() from None
    if log.errors:
        raise log.failure()
    return batch


def _document(root: Node, path: Path) -> Any:
    """The file's values as the model has them: each prompt with the defaults, its hyper-parameters apart."""
    if not isinstance(root.value, dict):
        return root.plain()
    document: dict[str, Any] = {
        key: node.plain() for key, node in root.value.items() if key not in ("$schema", *_NOT_IN_FILES)
    }
    for section in ("defaults", "evaluation", "gate", "search"):
        if section in document and document[section] is None:
            document[section] = {}
    if isinstance(search := document.get("search"), dict) and "space" in search:
        document["search"] = {**search, "space": {} if search["space"] is None else search["space"]}
    defaults, prompts = document.get("defaults"), document.get("prompts")
    if isinstance(prompts, tuple):
        shared = defaults if isinstance(defaults, dict) else {}
        shared = {key: value for key, value in shared.items() if key in HYPERPARAMETER_KEYS}
        document["prompts"] = tuple(_prompt(entry, shared) for entry in prompts)
    return {**document, "path": path, "written": root}


def _prompt(entry: Any, defaults: dict[str, Any]) -> Any:
    if not isinstance(entry, dict):
        return entry
    apart = (*HYPERPARAMETER_KEYS, "hyperparameters")  # the latter is no key of a file, and refused there
    described = {key: value for key, value in entry.items() if key not in apart}
    own = {key: value for key, value in entry.items() if key in apart}
    return {**described, "hyperparameters": {**defaults, **own}}
