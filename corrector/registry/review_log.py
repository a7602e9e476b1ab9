"""The log of reviews of a name: what was decided, by whom, when and why. Entries are only added.

Each entry is a separate tag of the registered model, `review.TIME.RANDOM`, so two reviewers never write the same
tag, and the log stays when versions are deleted. The log says which version is the champion. If the alias `champion`
names another version, somebody moved it in MLflow's own pages; this is valid, and an entry about it is added.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from corrector.registry.failures import RegistryError
from corrector.registry.references import CHAMPION, check_name, model
from corrector.registry.store import Store, open_store

Action = Literal["promoted", "rejected", "rolled back", "retired", "moved"]
MAX_REASON = 2000
OUTSIDE = "unknown, outside of these commands"

_PREFIX = "review."


class Entry(BaseModel):
    """One decision, as the JSON in a tag."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    action: Action
    version: str | None = Field(
        description="The version that was decided about, or made champion by a roll-back or a move. None: the champion was "
        "retired or its alias removed."
    )
    before: str | None = Field(description="The champion before.")
    who: str
    why: str
    when: AwareDatetime
    overridden: bool = Field(
        default=False, description="Whether the gate or an earlier rejection said otherwise."
    )
    recorded: bool = Field(
        default=True, exclude=True, description="False for a move that is in no log yet; not written."
    )


def history(name: str, *, tracking_uri: str | None, root: Path) -> list[Entry]:
    """The decisions about `name`, oldest first; a move of the champion that the log lacks comes last.

    Raises:
        RegistryError: There is no such name, or the registry fails.
    """
    with open_store(tracking_uri, root, writing=False) as store:
        registered = model(store, check_name(name))
        recorded = entries(registered.tags)
        unrecorded = unrecorded_move(recorded, registered.aliases.get(CHAMPION))
        return [*recorded, unrecorded] if unrecorded else recorded


def entries(tags: Mapping[str, str]) -> list[Entry]:
    """The log in a registered model's tags, oldest first; edited tags that cannot be read are left out."""
    found = []
    for key, value in sorted(tags.items()):
        if key.startswith(_PREFIX):
            try:
                found.append(Entry.model_validate_json(value))
            except ValidationError:
                continue
    return sorted(found, key=lambda entry: entry.when)


def champions(log: Sequence[Entry]) -> list[str]:
    """The champion and its predecessors, newest last, without those that were rolled back or retired."""
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
    """The versions that a roll-back may lead to, newest last: earlier champions, also if there is no champion now."""
    stack, last = champions(log), last_move(log)
    return stack if last is None or last.version is None else stack[:-1]


def time_after(log: Sequence[Entry]) -> datetime:
    """The time for the next entry: now, or just after the last entry if another machine's clock is ahead."""
    now = datetime.now(UTC)
    return max(now, log[-1].when + timedelta(microseconds=1)) if log else now


def last_move(log: Sequence[Entry]) -> Entry | None:
    """The newest entry that changed the champion."""
    return next((entry for entry in reversed(log) if entry.action != "rejected"), None)


def unrecorded_move(log: Sequence[Entry], champion: str | None) -> Entry | None:
    """The entry to add if the alias names another version than the log; else None."""
    last = last_move(log)
    known = last.version if last else None
    if champion == known:
        return None
    why = "the alias was found moved" if champion else "the alias was found removed"
    return Entry(
        action="moved",
        version=champion,
        before=known,
        who=OUTSIDE,
        why=why,
        when=time_after(log),
        recorded=False,
    )


def append(store: Store, name: str, entry: Entry) -> Entry:
    """Write one entry and return it as recorded; RegistryError as in `check_length`."""
    check_length(name, entry)
    key = f"{_PREFIX}{entry.when.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.{secrets.token_hex(4)}"
    content = entry.model_dump() | {"when": entry.when.isoformat()}
    store.models.set_tag(name, key, json.dumps(content, ensure_ascii=False))
    return entry.model_copy(update={"recorded": True})


def check_length(name: str, entry: Entry) -> None:
    """Raise RegistryError if the reason or the name of the reviewer is too long for the log."""
    for what, text in (("why", entry.why), ("who", entry.who)):
        if len(text) > MAX_REASON:
            raise RegistryError(f"{name}: {what} has {len(text):,} characters; keep it to {MAX_REASON:,}")
