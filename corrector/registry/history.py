"""What was decided about the versions of a name, by whom, when and why: an append-only log in MLflow.

Each entry is a tag of its own on the registered model, `review.TIME.RANDOM`, so that two reviewers never write the same one
and the log outlives the versions. The champions follow from the log alone; where the alias `champion` says otherwise, somebody
moved it in MLflow's own pages, which is as valid, and the log is given an entry that says so.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Self, get_args

from corrector.registry.failures import RegistryError
from corrector.registry.references import CHAMPION, check_name, model
from corrector.registry.store import Store, open_store

Action = Literal["promoted", "rejected", "rolled back", "retired", "moved"]
MAX_REASON = 2000
OUTSIDE = "unknown, outside of these commands"

_PREFIX = "review."


@dataclass(frozen=True)
class Entry:
    """One decision.

    Attributes:
        version: That the decision is about; with "rolled back" and "moved", the champion that it made. None where it
            made none: "retired", or the alias was removed by hand.
        before: The champion before.
        overridden: Whether the gate, or an earlier rejection, said otherwise.
        recorded: False for a move that was found just now and is in no log yet.
    """

    action: Action
    version: str | None
    before: str | None
    who: str
    why: str
    when: datetime
    overridden: bool = False
    recorded: bool = True

    def to_json(self) -> str:
        """The entry as the value of a tag."""
        content = {
            "action": self.action,
            "version": self.version,
            "before": self.before,
            "who": self.who,
            "why": self.why,
            "when": self.when.isoformat(),
            "overridden": self.overridden,
        }
        return json.dumps(content, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read a tag's value; None where somebody changed it into something else."""
        try:
            content = json.loads(text)
            entry = cls(
                action=content["action"],
                version=_optional(content["version"]),
                before=_optional(content["before"]),
                who=str(content["who"]),
                why=str(content["why"]),
                when=datetime.fromisoformat(content["when"]),
                overridden=bool(content["overridden"]),
            )
        except (ValueError, TypeError, KeyError):
            return None
        return entry if entry.action in get_args(Action) and entry.when.tzinfo is not None else None


def history(name: str, *, tracking_uri: str | None, root: Path) -> list[Entry]:
    """Every decision about `name`, oldest first; last, a move of the champion that is in no log yet.

    Raises:
        RegistryError: No such name, or the registry fails.
    """
    with open_store(tracking_uri, root, writing=False) as store:
        registered = model(store, check_name(name))
        recorded = entries(registered.tags)
        unrecorded = unrecorded_move(recorded, _optional(registered.aliases.get(CHAMPION)))
        return [*recorded, unrecorded] if unrecorded else recorded


def entries(tags: Mapping[str, str]) -> list[Entry]:
    """The log in a registered model's tags, oldest first."""
    found = [Entry.from_json(value) for key, value in sorted(tags.items()) if key.startswith(_PREFIX)]
    return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.when)


def champions(log: Sequence[Entry]) -> list[str]:
    """The champion and those it replaced, newest last; what was rolled back or retired is no longer among them."""
    stack: list[str] = []
    for entry in log:
        if entry.action == "rejected":
            continue
        if entry.version is None:
            if stack and stack[-1] == entry.before:
                stack.pop()
        elif entry.action == "rolled back" and entry.version in stack:
            while stack[-1] != entry.version:
                stack.pop()
        elif not stack or stack[-1] != entry.version:
            stack.append(entry.version)
    return stack


def predecessors(log: Sequence[Entry]) -> list[str]:
    """Where a roll-back leads, newest last: the champions before this one, or before there was none."""
    stack, last = champions(log), last_move(log)
    return stack if last is None or last.version is None else stack[:-1]


def time_after(log: Sequence[Entry]) -> datetime:
    """The time of an entry that follows `log`: now, or just after its last where that machine's clock is ahead."""
    now = datetime.now(UTC)
    return max(now, log[-1].when + timedelta(microseconds=1)) if log else now


def last_move(log: Sequence[Entry]) -> Entry | None:
    """The newest entry that says which version is the champion."""
    return next((entry for entry in reversed(log) if entry.action != "rejected"), None)


def unrecorded_move(log: Sequence[Entry], champion: str | None) -> Entry | None:
    """The entry that is missing where the alias is not where the log left it."""
    last = last_move(log)
    known = last.version if last else None
    if champion == known:
        return None
    why = "the alias was found moved" if champion else "the alias was found removed"
    return Entry("moved", champion, known, OUTSIDE, why, time_after(log), recorded=False)


def append(store: Store, name: str, entry: Entry) -> Entry:
    """Write one entry; returns it as recorded. RegistryError as of `check_length`."""
    check_length(name, entry)
    key = f"{_PREFIX}{entry.when.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.{secrets.token_hex(4)}"
    store.client.set_registered_model_tag(name, key, entry.to_json())
    return replace(entry, recorded=True)


def check_length(name: str, entry: Entry) -> None:
    """Raise RegistryError where the reason or the name of the reviewer is too long for the log."""
    for what, text in (("why", entry.why), ("who", entry.who)):
        if len(text) > MAX_REASON:
            raise RegistryError(f"{name}: {what} has {len(text):,} characters; keep it to {MAX_REASON:,}")


def _optional(value: object) -> str | None:
    return None if value is None else str(value)
