"""The commands of `python -m corrector.registry`: their arguments, and what they print."""

from __future__ import annotations

import argparse
import getpass
import os
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TransferSpeedColumn
from rich.table import Table

from corrector.adapters import FORMATS
from corrector.errors import UserError
from corrector.registry import import_command
from corrector.registry.comparison import fetch_compared
from corrector.registry.download import export
from corrector.registry.failures import RegistryError
from corrector.registry.garbage import OLDER_THAN, collect_garbage
from corrector.registry.listing import PAGE, find_record, find_version, list_models, show_model
from corrector.registry.promotion import promote, reject, retire, rollback
from corrector.registry.references import CANDIDATE, Reference, Version
from corrector.registry.review_log import Entry, history
from corrector.registry.sharing import LIFETIME, LONGEST, share
from corrector.registry.surveys import find_survey
from corrector.registry.tags import GRADE
from corrector.registry.traffic import Mode, set_traffic, traffic
from corrector.registry.verify import DigestCheck, verify
from corrector.report.comparison import compare_records, write_comparison
from corrector.report.provenance import COLUMNS, source_rows, sources_text
from corrector.report.survey_texts import survey_texts
from corrector.report.verdict_texts import grade_text

_TIMES = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MINUTE = timedelta(minutes=1)


def run(arguments: Sequence[str] | None, place: dict[str, Any], console: Console) -> int:
    """Run one command at `place` (tracking_uri, root), which options may override; returns its exit status."""
    options = parser().parse_args(arguments)
    chosen = dict(place)
    if options.root is not None:
        chosen = {"tracking_uri": None, "root": options.root}
    if options.tracking_uri is not None:
        chosen["tracking_uri"] = options.tracking_uri
    return int(options.run(options, chosen, console) or 0)


def parser() -> argparse.ArgumentParser:
    """The command line. Every command sets `run`, which takes the options, the place and a console."""
    top = argparse.ArgumentParser(
        prog="python -m corrector.registry",
        description="Look at registered adapters, review them, and look after them. "
        "An adapter is NAME, NAME/VERSION or NAME@ALIAS.",
    )
    _add_place(top, default=None)
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Any, what: str, *positional: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
        # A default here would replace the option that was given before the command.
        _add_place(added, default=argparse.SUPPRESS)
        added.set_defaults(run=run)
        for argument in positional:
            kind = Reference.parse if argument == "adapter" else str
            added.add_argument(argument, type=kind, metavar=argument.upper())
        return added

    listing = command("list", _list, "what is registered, changed last first")
    listing.add_argument(
        "containing", nargs="?", default="", metavar="TEXT", help="only names that contain TEXT"
    )
    listing.add_argument("--limit", type=int, default=PAGE, help=f"names to show ({PAGE})")
    command("show", _show, "a name with its versions, or one version with all it says", "adapter")
    diff = command("diff", _diff, "two versions side by side")
    diff.add_argument("one", type=Reference.parse, metavar="A")
    diff.add_argument("other", type=Reference.parse, metavar="B")
    diff.add_argument("--out", type=Path, metavar="FILE", help="write an HTML page with images, too")
    diff.add_argument("--all", action="store_true", help="also what is the same in both")

    promotion = command("promote", _promote, "make a version the champion", "name")
    promotion.add_argument("version", nargs="?", metavar="VERSION", help="default: the candidate")
    promotion.add_argument("--why", help="needed where the gate or a reviewer said no")
    rejection = command("reject", _reject, "record that a version is not to be used", "adapter")
    back = command("rollback", _rollback, "make the previous champion the champion again", "name")
    retirement = command(
        "retire", _retire, "take the champion down: its prompt is served by the base again", "name"
    )
    for review in (rejection, back, retirement):
        review.add_argument("--why", required=True)
    for review in (promotion, rejection, back, retirement):
        review.add_argument("--who", help="the reviewer (default: the user of MLflow, or of this machine)")
    command("history", _history, "who decided what, when and why", "name")
    serving = command("traffic", _traffic, "show or change who gets a name's adapter", "name")
    serving.add_argument(
        "--mode", choices=get_args(Mode), help="shadow: record what would be routed to it, and serve the base"
    )
    serving.add_argument("--challenger", metavar="VERSION", help="another version for some users, or none")
    serving.add_argument("--share", type=float, help="part of the users that get the challenger, 0 to 1")

    importing = command("import", _import, "register a LoRA that another program trained")
    import_command.add_arguments(importing)
    exporting = command("export", _export, "write an adapter to use elsewhere", "adapter")
    exporting.add_argument("destination", type=Path, metavar="DEST")
    exporting.add_argument("--format", choices=FORMATS, default="diffusers")
    sharing = command("share", _share, "a URL of the weights for people without access", "adapter")
    sharing.add_argument(
        "--minutes",
        type=_minutes,
        default=LIFETIME,
        help=f"until it expires, up to {LONGEST // _MINUTE} ({LIFETIME // _MINUTE})",
    )
    checking = command("verify", _verify, "compare every version's bytes with its digest")
    checking.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    cleaning = command("gc", _gc, "find what interrupted registrations left behind")
    cleaning.add_argument("--delete", action="store_true", help="remove it (default: only show it)")
    cleaning.add_argument(
        "--older-than",
        type=_duration,
        default=OLDER_THAN,
        metavar="TIME",
        help="as in 30d, 12h or 0m (30d)",
    )
    return top


def _add_place(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    """Add the options that say where the registry is; they may stand before the command and after it."""
    parser.add_argument(
        "--tracking-uri",
        default=default,
        help="an MLflow server (default: MLFLOW_TRACKING_URI, else the local registry)",
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=default,
        help="folder of the local registry (default: registry in CORRECTOR_RUNS)",
    )


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number and m, h, d or w, as in 30d")
    return timedelta(**{_TIMES[found[2]]: int(found[1])})


def _minutes(text: str) -> timedelta:
    if not re.fullmatch(r"\d{1,6}", text) or not 1 <= int(text) <= LONGEST // _MINUTE:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 1 to {LONGEST // _MINUTE} minutes")
    return timedelta(minutes=int(text))


def _list(options: argparse.Namespace, place: dict[str, Any], console: Console) -> None:
    page = list_models(**place, containing=options.containing, limit=options.limit)
    rows = []
    for item in page.models:
        newest = item.newest
        aliases = ", ".join(f"{alias} → {number}" for alias, number in sorted(item.aliases.items()))
        about = [newest.number, _verdict(newest), newest.decision, _change(newest)] if newest else [""] * 4
        rows.append([item.name, *about, aliases, newest.prompt if newest else ""])
    headings = ("name", "newest", "verdict", "review", "change of FID", "aliases", "prompt")
    console.print(_table(headings, rows))
    if page.token:
        console.print(f"The first {len(page.models)}; more with --limit N, or with a part of the name.")


def _show(options: argparse.Namespace, place: dict[str, Any], console: Console) -> None:
    reference: Reference = options.adapter
    if reference.version is not None or reference.alias is not None:
        version = find_version(reference, **place)
        rows = [("aliases", ", ".join(version.aliases)), *sorted(version.tags.items())]
        console.print(_table((str(version), ""), rows))
        _show_survey(version, place, console)
        _show_exemplars(version, place, console)
        return
    headings = ("version", "verdict", "review", "change of FID", "aliases", "registered", "SHA-256")
    console.print(
        _table(
            headings,
            (
                (
                    *(version.number, _verdict(version), version.decision, _change(version)),
                    *(", ".join(version.aliases), f"{version.created:%Y-%m-%d %H:%M}", version.sha256[:12]),
                )
                for version in show_model(reference.name, **place)
            ),
        )
    )


def _show_survey(version: Version, place: dict[str, Any], console: Console) -> None:
    try:
        survey = find_survey(version, **place)
    except UserError as error:  # the rest stays of use
        _say(console, str(error))
        return
    for source, text in survey_texts(survey) if survey else ():
        _say(console, f"  {source}: {text}")


def _show_exemplars(version: Version, place: dict[str, Any], console: Console) -> None:
    try:
        sources = find_record(version, **place).exemplars
    except UserError as error:  # the tags stay of use
        _say(console, str(error))
        return
    if sources:
        _say(console, f"\nexemplars: {sources_text(sources)}")
        console.print(_table(COLUMNS, source_rows(sources)))


def _diff(options: argparse.Namespace, place: dict[str, Any], console: Console) -> None:
    one, other = fetch_compared((options.one, options.other), **place)
    rows = compare_records(one, other)
    shown = [(row.what, row.one, row.other) for row in rows if row.differs or options.all]
    console.print(_table(("", one.title, other.title), shown))
    if options.out:
        _say(console, str(write_comparison(one, other, options.out)))


def _promote(options: argparse.Namespace, place: dict[str, Any], console: Console) -> None:
    reference = Reference.parse(options.name)
    if options.version is not None and reference != Reference(reference.name):
        raise RegistryError(f"{options.name} {options.version}: name the version once")
    if options.version is not None:
        reference = Reference.parse(f"{reference.name}/{options.version}")
    elif reference == Reference(reference.name):
        reference = Reference(reference.name, alias=CANDIDATE)
    chosen = find_version(reference, **place)
    card = find_record(chosen, **place).scorecard
    if card is None:
        _say(console, f"{chosen}: not judged")
    else:
        _say(console, f"{chosen}: {grade_text(card) or 'the gate did not pass it'}")
        for text in card.verdict.unknown:
            _say(console, f"  not known: {text}")
    _show_survey(chosen, place, console)
    entry = promote(chosen.name, chosen.number, who=_who(options), why=options.why, **place)
    _say(console, _decision(reference.name, entry))


def _reject(options: argparse.Namespace, place: dict[str, Any], console: Console) -> None:
    reference: Reference = options.adapter
    if reference.version is None and reference.alias is None:
        raise RegistryError(f"{reference}: which version? write {reference}/VERSION or {reference}@candidate")
    number = find_version(reference, **place).number
    entry = reject(reference.name, number, who=_who(options), why=options.why, **place)
    _say(console, _decision(reference.name, entry))


def _rollback(options: argparse.Namespace, place: dict[str, Any], console: Console) -> None:
    entry = rollback(options.name, who=_who(options), why=options.why, **place)
    _say(console, _decision(options.name, entry))


def _retire(options: argparse.Namespace, place: dict[str, Any], console: Console) -> None:
    entry = retire(options.name, who=_who(options), why=options.why, **place)
    _say(console, f"{options.name}/{entry.before} retired by {entry.who}: the base serves its prompt")


def _traffic(options: argparse.Namespace, place: dict[str, Any], console: Console) -> None:
    changes = {"mode": options.mode, "challenger": options.challenger, "challenger_share": options.share}
    if any(value is not None for value in changes.values()):
        found = set_traffic(options.name, **changes, **place)
    else:
        found = traffic(options.name, **place)
    share = f", which {found.tags.challenger_share:.0%} of its users get" if found.challenger else ""
    _say(console, f"{options.name}: {found.tags.mode}, challenger {found.challenger or 'none'}{share}")


def _history(options: argparse.Namespace, place: dict[str, Any], console: Console) -> None:
    rows = []
    for entry in history(options.name, **place):
        action = entry.action + (" (overriding)" if entry.overridden else "")
        # The log has no time for an unrecorded move.
        when = f"{entry.when:%Y-%m-%d %H:%M:%S}" if entry.recorded else "unknown"
        rows.append([when, action, entry.version or "none", entry.before or "none", entry.who, entry.why])
    console.print(_table(("when (UTC)", "decision", "version", "champion before", "who", "why"), rows))


def _import(options: argparse.Namespace, place: dict[str, Any], console: Console) -> None:
    import_command.run(options, place, partial(_say, console))


def _export(options: argparse.Namespace, place: dict[str, Any], console: Console) -> None:
    _say(console, str(export(options.adapter, options.destination, options.format, **place)))


def _share(options: argparse.Namespace, place: dict[str, Any], console: Console) -> None:
    shared = share(options.adapter, **place, lifetime=options.minutes)
    _say(console, shared.url)
    _say(console, f"{shared.version}, SHA-256 {shared.sha256}")
    console.print(f"expires {shared.expires:%Y-%m-%d %H:%M:%S} UTC; until then it serves whoever has it")


def _verify(options: argparse.Namespace, place: dict[str, Any], console: Console) -> int:
    columns = (BarColumn(), MofNCompleteColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        versions, read = bar.add_task("versions", total=None), bar.add_task("bytes", total=None)

        def progress(checked: DigestCheck, total: int) -> None:
            bar.update(versions, total=total, advance=1)
            bar.update(read, advance=checked.bytes)

        found = verify(options.names, **place, progress=progress)
    wrong = [checked.problem for checked in found if checked.problem]
    for problem in sorted(wrong):
        console.print(f"[red]wrong[/red] {escape(problem)}")
    size = sum(checked.bytes for checked in found)
    console.print(f"{len(found)} versions, {size / 1e6:.1f} MB: {len(wrong)} wrong")
    return 1 if wrong else 0


def _gc(options: argparse.Namespace, place: dict[str, Any], console: Console) -> None:
    found = collect_garbage(**place, older_than=options.older_than, delete=options.delete)
    if found:
        rows = ((item.kind, item.identity, item.why, f"{item.since:%Y-%m-%d %H:%M}") for item in found)
        console.print(_table(("what", "identity", "why", "since (UTC)"), rows))
    done = "removed" if options.delete else "found; nothing was removed, --delete does"
    console.print(f"{len(found)} {done}")


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(escape(heading), overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _say(console: Console, text: str) -> None:
    """Print text without markup and without wrapping lines."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _verdict(version: Version) -> str:
    """The status, and the grade of what has passed."""
    if not version.complete:
        return "registration unfinished"
    grade = version.tags.get(GRADE)
    imported = ", imported" if "imported" in version.tags else ""
    return (f"{version.status} ({grade})" if grade else version.status) + imported


def _change(version: Version) -> str:
    """The change of the first FID with its interval and n, and its metric's name."""
    for metric, found in version.scores.items():
        if {"change", "low", "high", "n"} <= found.keys():
            interval = f"[{found['low']:.4g}, {found['high']:.4g}]"
            return f"{found['change']:+.4g} {interval}, n = {found['n']:.0f} ({metric.removeprefix('fid_')})"
    return ""


def _decision(name: str, entry: Entry) -> str:
    before = f" (before: {entry.before})" if entry.before and entry.before != entry.version else ""
    return f"{name}/{entry.version} {entry.action} by {entry.who}{before}"


def _who(options: argparse.Namespace) -> str:
    return str(options.who or os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser())
