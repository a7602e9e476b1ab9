"""Review: promote a version to champion, reject it, or roll back; serving follows the alias `champion`.

`champion` is one row of MLflow's database: a reader finds the old champion or the new one, never two and never none. It is
moved before the decision is recorded, so the log never tells of a move that did not happen; a crash in between leaves a move
that `history` shows as one from outside, and that the same command, given again, records.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from corrector.registry.history import (
    MAX_REASON,
    Action,
    Entry,
    append,
    champions,
    check_length,
    entries,
    last_move,
    unrecorded_move,
)
from corrector.registry.references import (
    CANDIDATE,
    CHAMPION,
    PREVIOUS,
    Reference,
    Version,
    check_name,
    model,
    resolve,
    versions,
)
from corrector.registry.store import RegistryError, Store, open_store
from corrector.registry.versions import download_adapter, read_record


def promote(
    name: str,
    version: str | int | None = None,
    *,
    who: str,
    why: str | None = None,
    tracking_uri: str | None,
    root: Path,
) -> Entry:
    """Make a version the champion: its bytes are checked, and the gate's verdict in its record.

    Args:
        version: None: the candidate.
        who: The reviewer.
        why: Needed where the gate did not pass it, or where it was rejected or rolled back before.

    Returns:
        The recorded decision; the earlier one where the version is champion already.

    Raises:
        RegistryError: No such version; it is unfinished, damaged, or not to be promoted without a reason; or somebody else
            promoted another at the same moment.
    """
    reference = Reference(name, str(version)) if version is not None else Reference(name, alias=CANDIDATE)
    with _reviewing(name, tracking_uri, root) as review:
        chosen = resolve(review.store, reference)
        last = last_move(review.log)
        if last and last.action == "promoted" and last.version == review.champion == chosen.number:
            _decide(review.store, chosen, "promoted", last)
            _drop_candidate(review.store, chosen)
            return last
        _check_complete(chosen)
        doubts = _doubts(review.store, chosen)
        if doubts and not _given(why):
            raise RegistryError(f"{chosen}: {'; '.join(doubts)}; to promote it all the same, say --why")
        with tempfile.TemporaryDirectory() as staging:
            download_adapter(review.store, chosen, Path(staging))
        return review.crown("promoted", chosen, who, why or "", overridden=bool(doubts))


def rollback(name: str, *, who: str, why: str, tracking_uri: str | None, root: Path) -> Entry:
    """Make the champion's predecessor the champion again; a second time, the one before that.

    Versions that were deleted or rejected meanwhile are passed over.

    Raises:
        RegistryError: No reason, or nothing to go back to; or the bytes there are damaged.
    """
    if not _given(why):
        raise RegistryError(f"{name}: a roll-back needs a reason; say --why")
    with _reviewing(name, tracking_uri, root) as review:
        there = {version.number: version for version in versions(review.store, name)}
        for number in reversed(champions(review.log)[:-1]):
            earlier = there.get(number)
            if earlier is None or earlier.decision == "rejected":
                continue
            with tempfile.TemporaryDirectory() as staging:
                download_adapter(review.store, earlier, Path(staging))
            taken_down = review.champion
            entry = review.crown("rolled back", earlier, who, why, overridden=False)
            if taken_down is not None and taken_down in there and taken_down != number:
                _decide(review.store, there[taken_down], "rolled back", entry)
            return entry
    raise RegistryError(f"{name}: no earlier champion is left to go back to; promote a version")


def reject(
    name: str, version: str | int, *, who: str, why: str, tracking_uri: str | None, root: Path
) -> Entry:
    """Record that a version is not to be used; it stays in the registry, and is no candidate any more.

    Raises:
        RegistryError: No reason, no such version, or it is the champion.
    """
    if not _given(why):
        raise RegistryError(f"{name}/{version}: a rejection needs a reason; say --why")
    with _reviewing(name, tracking_uri, root) as review:
        chosen = resolve(review.store, Reference(name, str(version)))
        if review.champion == chosen.number:
            raise RegistryError(
                f"{chosen}: is the champion; roll back, or promote another, and then reject it"
            )
        entry = append(
            review.store,
            name,
            Entry("rejected", chosen.number, review.champion, who, why, datetime.now(UTC)),
        )
        _decide(review.store, chosen, "rejected", entry)
        _drop_candidate(review.store, chosen)
        return entry


@dataclass
class _Review:
    """The state of one name while it is reviewed."""

    store: Store
    name: str
    log: list[Entry]
    champion: str | None

    def crown(self, action: Action, version: Version, who: str, why: str, *, overridden: bool) -> Entry:
        """Move the aliases, then record it. `previous` first: until `champion` moves it names the champion, too."""
        entry = Entry(action, version.number, self.champion, who, why, datetime.now(UTC), overridden)
        check_length(self.name, entry)
        predecessors = champions([*self.log, entry])[:-1]
        if predecessors and predecessors[-1] in {item.number for item in versions(self.store, self.name)}:
            self.store.set_alias(self.name, PREVIOUS, predecessors[-1])
        else:
            self.store.client.delete_registered_model_alias(self.name, PREVIOUS)
        self.store.set_alias(self.name, CHAMPION, version.number)
        found = str(model(self.store, self.name).aliases.get(CHAMPION))
        if found != version.number:
            raise RegistryError(
                f"{self.name}: somebody made version {found} the champion at the same moment; look at "
                "`history`, and promote again what you want"
            )
        recorded = append(self.store, self.name, entry)
        _decide(self.store, version, "promoted", recorded)
        _drop_candidate(self.store, version)
        return recorded


@contextmanager
def _reviewing(name: str, tracking_uri: str | None, root: Path) -> Iterator[_Review]:
    """Open a name for review; a move that somebody made outside is recorded first."""
    check_name(name)
    with open_store(tracking_uri, root, writing=True) as store:
        registered = model(store, name)
        champion = registered.aliases.get(CHAMPION)
        log = entries(registered.tags)
        moved = unrecorded_move(log, None if champion is None else str(champion))
        if moved is not None:
            log.append(append(store, name, moved))
        yield _Review(store, name, log, None if champion is None else str(champion))


def _doubts(store: Store, version: Version) -> list[str]:
    """Why a version is not to be promoted without a reason. The record is asked, as anybody can edit a tag."""
    record = read_record(store, version)
    found = []
    verdict = record.scorecard.verdict if record.scorecard else None
    if verdict is None or not verdict.passed:
        failed = (
            [f"{check.name} ({check.detail})" for check in verdict.reasons if not check.passed]
            if verdict
            else []
        )
        found.append("the gate did not pass it" + (f": {', '.join(failed)}" if failed else ""))
    if version.decision in ("rejected", "rolled back"):
        why = version.tags.get("review.why", "")
        found.append(f"it was {version.decision} by {version.tags.get('review.by', 'somebody')}: {why}")
    return found


def _check_complete(version: Version) -> None:
    if not version.complete:
        raise RegistryError(
            f"{version}: its registration has not ended; wait for it, or submit its batch again, "
            "which completes it"
        )


def _decide(store: Store, version: Version, decision: str, entry: Entry) -> None:
    """What the last review said, as tags that MLflow's pages can filter on."""
    tags = {
        "review.decision": decision,
        "review.by": entry.who,
        "review.at": entry.when.isoformat(),
        "review.why": entry.why[:MAX_REASON],
    }
    for key, value in tags.items():
        store.set_tag(version.name, version.number, key, value)


def _drop_candidate(store: Store, version: Version) -> None:
    if str(model(store, version.name).aliases.get(CANDIDATE)) == version.number:
        store.client.delete_registered_model_alias(version.name, CANDIDATE)


def _given(why: str | None) -> bool:
    return bool(why and why.strip())
