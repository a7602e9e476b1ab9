"""Reviews: promote a version to champion, reject it, roll back, or retire it. Serving follows the alias `champion`.

`champion` is one row of MLflow's database: a reader sees the old champion or the new one, or none after it was
retired. The alias is moved before the decision is recorded, so the log names no move that did not happen. After a
crash in between, `history` shows the move as made outside; the same command, given again, records it.

When several reviewers decide at the same time, the log has an entry of each, and the last entry counts. Each reviewer
reads the log again after recording, and sets `champion` and `previous` by it until they agree with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from corrector.registry.download import read_record, verified_files
from corrector.registry.failures import RegistryError
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
from corrector.registry.review_log import (
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
from corrector.registry.store import Store, open_store
from corrector.registry.surveys import read_survey, survey_objections
from corrector.registry.tags import DECISION

NOT_SERVED = "an endpoint cannot serve it, since it applies LoRA of the attention's layers only"
"""What is said of an imported adapter that changes other layers too; the library draws with it."""


def promote(
    name: str,
    version: str | int | None = None,
    *,
    who: str,
    why: str | None = None,
    tracking_uri: str | None,
    root: Path,
) -> Entry:
    """Make a version the champion, after a check of its bytes, of the gate's verdict in its record, and of an attached survey
    where its thresholds require one.

    Args:
        version: None: the candidate.
        who: The reviewer.
        why: Required if the gate did not pass it, if what people or a judge prefer is required and not there or not enough, or
            if it was rejected or rolled back before.

    Returns:
        The recorded decision; the earlier one if the version is champion already.

    Raises:
        RegistryError: There is no such version; it is unfinished or damaged, or needs a reason; or somebody else decided
            otherwise at the same moment.
    """
    reference = Reference(name, str(version)) if version is not None else Reference(name, alias=CANDIDATE)
    with _reviewing(name, tracking_uri, root) as review:
        chosen = resolve(review.store, reference)
        last = last_move(review.log)
        if last and last.action == "promoted" and last.version == review.champion == chosen.number:
            _tag_promoted(review.store, chosen, last)
            return last
        if not chosen.complete:
            raise RegistryError(
                f"{chosen}: its registration has not ended; wait for it, or submit its batch again, which completes it"
            )
        objections = _objections(review.store, chosen)
        if objections and not (why and why.strip()):
            raise RegistryError(f"{chosen}: {'; '.join(objections)}; to promote it all the same, say --why")
        return review.promote("promoted", chosen, who, why or "", overridden=bool(objections))


def rollback(name: str, *, who: str, why: str, tracking_uri: str | None, root: Path) -> Entry:
    """Make the previous champion the champion again; a second call goes back one more.

    Versions that were deleted or rejected meanwhile are skipped.

    Raises:
        RegistryError: No reason is given, there is nothing to go back to, or its bytes are damaged.
    """
    _need_reason(f"{name}: a roll-back needs a reason", why)
    with _reviewing(name, tracking_uri, root) as review:
        there = {version.number: version for version in versions(review.store, name)}
        for number in reversed(predecessors(review.log)):
            earlier = there.get(number)
            if earlier is None or earlier.decision == "rejected":
                continue
            entry = review.promote("rolled back", earlier, who, why)
            if review.champion in there and review.champion != number:
                _tag_decision(review.store, there[review.champion], "rolled back", entry)
            return entry
        remedy = "promote another version"
        if review.champion is not None:
            remedy += f", or retire {name}/{review.champion}: its prompt is then served by the base"
        raise RegistryError(f"{name}: no earlier champion is left to go back to; {remedy}")


def retire(name: str, *, who: str, why: str, tracking_uri: str | None, root: Path) -> Entry:
    """Remove the champion without a successor: the base serves its prompt again.

    Returns:
        The recorded decision; its `before` is the former champion.

    Raises:
        RegistryError: No reason is given, there is no champion, or somebody else decided otherwise at the same moment.
    """
    _need_reason(f"{name}: to retire the champion needs a reason", why)
    with _reviewing(name, tracking_uri, root) as review:
        if review.champion is None:
            raise RegistryError(f"{name}: has no champion; its prompt is served by the base already")
        there = {version.number: version for version in versions(review.store, name)}
        entry = review.move("retired", None, who, why)
        if review.champion in there:
            _tag_decision(review.store, there[review.champion], "retired", entry)
        return entry


def reject(
    name: str, version: str | int, *, who: str, why: str, tracking_uri: str | None, root: Path
) -> Entry:
    """Record that a version must not be used. It stays in the registry, but is no longer the candidate.

    Raises:
        RegistryError: No reason is given, there is no such version, or it is the champion.
    """
    _need_reason(f"{name}/{version}: a rejection needs a reason", why)
    with _reviewing(name, tracking_uri, root) as review:
        chosen = resolve(review.store, Reference(name, str(version)))
        if review.champion == chosen.number:
            raise RegistryError(
                f"{chosen}: is the champion; roll back, promote another, or retire it, and then reject it"
            )
        entry = append(review.store, name, review.entry("rejected", chosen.number, who, why))
        _tag_decision(review.store, chosen, "rejected", entry)
        review.store.remove_alias(name, CANDIDATE, chosen.number)
        return entry


@dataclass
class _Review:
    """The state of one name while it is reviewed."""

    store: Store
    name: str
    log: list[Entry]
    champion: str | None

    def entry(
        self, action: Action, version: str | None, who: str, why: str, *, overridden: bool = False
    ) -> Entry:
        """The entry that follows the log."""
        return Entry(
            action=action, version=version, before=self.champion, who=who, why=why, when=time_after(self.log),
            overridden=overridden,
        )  # fmt: skip

    def promote(
        self, action: Action, version: Version, who: str, why: str, *, overridden: bool = False
    ) -> Entry:
        """Make `version` the champion after its bytes were checked; returns the recorded decision."""
        with tempfile.TemporaryDirectory() as staging:
            verified_files(self.store, version, Path(staging))
        recorded = self.move(action, version.number, who, why, overridden=overridden)
        _tag_promoted(self.store, version, recorded)
        return recorded

    def move(
        self, action: Action, champion: str | None, who: str, why: str, *, overridden: bool = False
    ) -> Entry:
        """Move the aliases, `previous` first; record the decision; and read the log again.

        Raises:
            RegistryError: Somebody decided otherwise at the same moment; the log has both decisions.
        """
        entry = self.entry(action, champion, who, why, overridden=overridden)
        check_length(self.name, entry)
        if champion is not None:
            self._set_alias(PREVIOUS, self._previous([*self.log, entry]))
        self._set_alias(CHAMPION, champion)
        recorded = append(self.store, self.name, entry)
        last = self._follow_log()
        if last.version != champion:
            raise RegistryError(
                f"{self.name}: at the same moment {last.who} decided otherwise ({last.action}), and that is what counts; "
                "look at `history`, and decide again if need be"
            )
        return recorded

    def _follow_log(self) -> Entry:
        """Set the aliases as the log says; returns the entry that counts.

        A champion that the new entries do not name stays: it was set by hand, or by a reviewer who has not recorded it
        yet.
        """
        known = set(self.log)
        while True:
            registered = model(self.store, self.name)
            log = entries(registered.tags)
            moves = [entry for entry in log if entry.action != "rejected"]
            champion, last = registered.aliases.get(CHAMPION), moves[-1]
            if champion != last.version and champion in {e.version for e in moves if e not in known}:
                self._set_alias(CHAMPION, last.version)
                continue
            moved = unrecorded_move(log, champion)
            previous = self._previous([*log, moved] if moved else log)
            if registered.aliases.get(PREVIOUS) == previous:
                return moved or last
            self._set_alias(PREVIOUS, previous)

    def _previous(self, log: list[Entry]) -> str | None:
        """The version that `previous` should name by `log`: the one that a roll-back leads to, unless it was deleted."""
        earlier = predecessors(log)
        there = {version.number for version in versions(self.store, self.name)} if earlier else set()
        return earlier[-1] if earlier and earlier[-1] in there else None

    def _set_alias(self, alias: str, version: str | None) -> None:
        if version is None:
            self.store.models.delete_alias(self.name, alias)
        else:
            self.store.models.set_alias(self.name, alias, version)


@contextmanager
def _reviewing(name: str, tracking_uri: str | None, root: Path) -> Iterator[_Review]:
    """Open a name for review, and record a move of the alias that the log lacks."""
    check_name(name)
    with open_store(tracking_uri, root, writing=True) as store:
        registered = model(store, name)
        champion = registered.aliases.get(CHAMPION)
        log = entries(registered.tags)
        moved = unrecorded_move(log, champion)
        if moved is not None:
            log.append(append(store, name, moved))
        yield _Review(store, name, log, champion)


def _objections(store: Store, version: Version) -> list[str]:
    """Why a promotion of `version` needs a reason. The verdict is read from its record, as anybody can edit a tag."""
    record = read_record(store, version)
    found = []
    verdict = record.scorecard.verdict if record.scorecard else None
    if verdict is None:
        found.append("it was not judged: it was imported without exemplars")
    elif not verdict.passed:
        failed = [f"{check.name} ({check.detail})" for check in verdict.reasons if not check.passed]
        found.append("the gate did not pass it" + (f": {', '.join(failed)}" if failed else ""))
    if record.imported is not None and (others := record.imported.get("other_layers")):
        found.append(f"it changes {others}: {NOT_SERVED}")
    if record.scorecard is not None:
        found += survey_objections(record.scorecard.thresholds, lambda: read_survey(store, version))
    if version.decision in ("rejected", "rolled back", "retired"):
        why = version.tags.get("review.why", "")
        found.append(f"it was {version.decision} by {version.tags.get('review.by', 'somebody')}: {why}")
    return found


def _tag_promoted(store: Store, version: Version, entry: Entry) -> None:
    _tag_decision(store, version, "promoted", entry)
    store.remove_alias(version.name, CANDIDATE, version.number)


def _tag_decision(store: Store, version: Version, decision: str, entry: Entry) -> None:
    """Write the last decision about a version as tags, so that MLflow's pages can filter by it."""
    tags = {
        DECISION: decision,
        "review.by": entry.who,
        "review.at": entry.when.isoformat(),
        "review.why": entry.why[:MAX_REASON],
    }
    for key, value in tags.items():
        store.models.set_version_tag(version.name, version.number, key, value)


def _need_reason(what: str, why: str) -> None:
    if not why.strip():
        raise RegistryError(f"{what}; say --why")
