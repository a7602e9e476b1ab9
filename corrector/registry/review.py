"""Review: promote a version to champion, reject it, roll back, or retire it; serving follows the alias `champion`.

`champion` is one row of MLflow's database: a reader finds the old champion or the new one, never two, and none only where it
was retired. It is moved before the decision is recorded, so the log never tells of a move that did not happen; a crash in
between leaves a move that `history` shows as one from outside, and that the same command, given again, records.

Of reviewers who decide at the same moment, the log has everybody's entry, and its last decides: each looks again after
recording, and lets `champion` and `previous` follow the log, until it finds them so. The last to look has seen all entries.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from corrector.registry.download import download_adapter, read_record
from corrector.registry.failures import RegistryError
from corrector.registry.history import (
    MAX_REASON,
    Action,
    Entry,
    append,
    check_length,
    entries,
    last_move,
    predecessors,
    time_after,
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
from corrector.registry.store import Store, open_store


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
            decided otherwise at the same moment.
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
        for number in reversed(predecessors(review.log)):
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
        remedy = "promote another version"
        if review.champion is not None:
            remedy += f", or retire {name}/{review.champion}: its prompt is then served by the base"
        raise RegistryError(f"{name}: no earlier champion is left to go back to; {remedy}")


def retire(name: str, *, who: str, why: str, tracking_uri: str | None, root: Path) -> Entry:
    """Take the champion down and put none in its place: its prompt is served by the base again.

    Returns:
        The recorded decision; its `before` is what was taken down.

    Raises:
        RegistryError: No reason, or there is no champion; or somebody else decided otherwise at the same moment.
    """
    if not _given(why):
        raise RegistryError(f"{name}: to retire the champion needs a reason; say --why")
    with _reviewing(name, tracking_uri, root) as review:
        if review.champion is None:
            raise RegistryError(f"{name}: has no champion; its prompt is served by the base already")
        there = {version.number: version for version in versions(review.store, name)}
        entry = review.move("retired", None, who, why)
        if review.champion in there:
            _decide(review.store, there[review.champion], "retired", entry)
        return entry


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
                f"{chosen}: is the champion; roll back, promote another, or retire it, and then reject it"
            )
        entry = append(
            review.store,
            name,
            Entry("rejected", chosen.number, review.champion, who, why, time_after(review.log)),
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
        """Make `version` the champion; returns the recorded decision. RegistryError as of `move`."""
        recorded = self.move(action, version.number, who, why, overridden=overridden)
        _decide(self.store, version, "promoted", recorded)
        _drop_candidate(self.store, version)
        return recorded

    def move(
        self, action: Action, champion: str | None, who: str, why: str, *, overridden: bool = False
    ) -> Entry:
        """Move the aliases, record it, and look again; `previous` first: until `champion` moves it names that, too.

        Raises:
            RegistryError: Somebody decided otherwise at the same moment; the log has both.
        """
        entry = Entry(action, champion, self.champion, who, why, time_after(self.log), overridden)
        check_length(self.name, entry)
        if champion is not None:
            self._point(PREVIOUS, self._previous([*self.log, entry]))
        self._point(CHAMPION, champion)
        recorded = append(self.store, self.name, entry)
        last = self._settle()
        if last.version != champion:
            raise RegistryError(
                f"{self.name}: at the same moment {last.who} decided otherwise ({last.action}), and that is what counts; "
                "look at `history`, and decide again if need be"
            )
        return recorded

    def _settle(self) -> Entry:
        """Let the aliases follow the log; returns the entry that decides.

        A champion that no entry since the beginning of this review tells of was moved by hand, or by somebody who is
        about to record it and to look, too: it stays.
        """
        known = set(self.log)
        while True:
            registered = model(self.store, self.name)
            log = entries(registered.tags)
            pointed = {alias: str(number) for alias, number in registered.aliases.items()}
            moves = [entry for entry in log if entry.action != "rejected"]
            champion, last = pointed.get(CHAMPION), moves[-1]
            if champion != last.version and champion in {e.version for e in moves if e not in known}:
                self._point(CHAMPION, last.version)
                continue
            moved = unrecorded_move(log, champion)
            previous = self._previous([*log, moved] if moved else log)
            if pointed.get(PREVIOUS) == previous:
                return moved or last
            self._point(PREVIOUS, previous)

    def _previous(self, log: list[Entry]) -> str | None:
        """What `previous` names after `log`: where a roll-back leads, unless that was deleted."""
        earlier = predecessors(log)
        there = {version.number for version in versions(self.store, self.name)} if earlier else set()
        return earlier[-1] if earlier and earlier[-1] in there else None

    def _point(self, alias: str, version: str | None) -> None:
        if version is None:
            self.store.client.delete_registered_model_alias(self.name, alias)
        else:
            self.store.set_alias(self.name, alias, version)


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
    if version.decision in ("rejected", "rolled back", "retired"):
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
