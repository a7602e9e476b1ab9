"""The commands of `python -m corrector.registry`: what they ask for and how they show it."""

from __future__ import annotations

import argparse
import getpass
import os
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TransferSpeedColumn
from rich.table import Table

from corrector.adapters import FORMATS
from corrector.registry.comparison import fetch_compared
from corrector.registry.download import export
from corrector.registry.failures import RegistryError
from corrector.registry.garbage import collect_garbage
from corrector.registry.history import Entry, history
from corrector.registry.listing import PAGE, find_version, list_models, show_model
from corrector.registry.references import Reference, Version
from corrector.registry.review import promote, reject, retire, rollback
from corrector.registry.sharing import LIFETIME, LONGEST, share
from corrector.registry.traffic import Mode, set_traffic, traffic
from corrector.registry.verify import DigestCheck, verify
from corrector.report.comparison import compare_records, write_comparison

_TIMES = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parser() -> argparse.ArgumentParser:
    """The command line; every command sets `run`, called with the options, the registry's place and a console."""
    top = argparse.ArgumentParser(
        prog="python -m corrector.registry",
        description="Look at registered adapters, review them, and look after them. "
        "An adapter is NAME, NAME/VERSION or NAME@ALIAS.",
    )
    _place(top, default=None)
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    listing = _command(commands, "list", _list, "what is registered, changed last first")
    listing.add_argument(
        "containing", nargs="?", default="", metavar="TEXT", help="only names that contain TEXT"
    )
    listing.add_argument("--limit", type=int, default=PAGE, help=f"names to show ({PAGE})")
    _adapter(_command(commands, "show", _show, "a name with its versions, or one version with all it says"))
    diff = _command(commands, "diff", _diff, "two versions side by side")
    diff.add_argument("one", type=Reference.parse, metavar="A")
    diff.add_argument("other", type=Reference.parse, metavar="B")
    diff.add_argument("--out", type=Path, metavar="FILE", help="write an HTML page with images, too")
    diff.add_argument("--all", action="store_true", help="also what is the same in both")

    promotion = _command(commands, "promote", _promote, "make a version the champion")
    promotion.add_argument("name", metavar="NAME")
    promotion.add_argument("version", nargs="?", metavar="VERSION", help="default: the candidate")
    promotion.add_argument("--why", help="needed where the gate or a reviewer said no")
    rejection = _adapter(_command(commands, "reject", _reject, "record that a version is not to be used"))
    rejection.add_argument("--why", required=True)
    back = _command(commands, "rollback", _rollback, "make the previous champion the champion again")
    back.add_argument("name", metavar="NAME")
    back.add_argument("--why", required=True)
    retirement = _command(
        commands, "retire", _retire, "take the champion down: its prompt is served by the base again"
    )
    retirement.add_argument("name", metavar="NAME")
    retirement.add_argument("--why", required=True)
    for command in (promotion, rejection, back, retirement):
        command.add_argument(
            "--who", default=None, help="the reviewer (default: the user of MLflow, or of this machine)"
        )
    serving = _command(commands, "traffic", _traffic, "show or change who gets a name's adapter")
    serving.add_argument("name", metavar="NAME")
    serving.add_argument(
        "--mode", choices=get_args(Mode), help="shadow: record what would be routed to it, and serve the base"
    )
    serving.add_argument("--challenger", metavar="VERSION", help="another version for some users, or none")
    serving.add_argument("--share", type=float, help="part of the users that get the challenger, 0 to 1")
    _command(commands, "history", _history, "who decided what, when and why").add_argument(
        "name", metavar="NAME"
    )

    exporting = _adapter(_command(commands, "export", _export, "write an adapter to use elsewhere"))
    exporting.add_argument("destination", type=Path, metavar="DEST")
    exporting.add_argument("--format", choices=FORMATS, default="diffusers")
    sharing = _adapter(_command(commands, "share", _share, "a URL of the weights for people without access"))
    sharing.add_argument(
        "--minutes",
        type=_minutes,
        default=LIFETIME,
        help=f"until it expires, up to {_in_minutes(LONGEST)} ({_in_minutes(LIFETIME)})",
    )
    checking = _command(commands, "verify", _verify, "compare every version's bytes with its digest")
    checking.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    cleaning = _command(commands, "gc", _gc, "find what interrupted registrations left behind")
    cleaning.add_argument("--delete", action="store_true", help="remove it (default: only show it)")
    cleaning.add_argument(
        "--older-than",
        type=_duration,
        default=timedelta(days=30),
        metavar="TIME",
        help="as in 30d, 12h or 0m (30d)",
    )
    return top


def _command(commands: Any, name: str, run: Any, what: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    # A default here would replace what was said before the command.
    _place(command, default=argparse.SUPPRESS)
    command.set_defaults(run=run)
    return command


def _place(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    """Where the registry is; may be said before the command and after it."""
    parser.add_argument(
        "--tracking-uri",
        default=default,
        help="an MLflow server (default: MLFLOW_TRACKING_URI, else the local form)",
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=default,
        help="folder of the local form (default: registry in CORRECTOR_RUNS)",
    )


def _adapter(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument("adapter", type=Reference.parse, metavar="ADAPTER")
    return command


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number and m, h, d or w, as in 30d")
    return timedelta(**{_TIMES[found[2]]: int(found[1])})


def _minutes(text: str) -> timedelta:
    if not re.fullmatch(r"\d{1,6}", text) or not 1 <= int(text) <= _in_minutes(LONGEST):
        raise argparse.ArgumentTypeError(f"{text!r}: expected 1 to {_in_minutes(LONGEST)} minutes")
    return timedelta(minutes=int(text))


def _in_minutes(time: timedelta) -> int:
    return time // timedelta(minutes=1)


def _list(options: argparse.Namespace, place: dict[str, Any], console: Console) -> int:
    page = list_models(**place, containing=options.containing, limit=options.limit)
    table = _table("name", "newest", "verdict", "review", "change of FID", "aliases", "prompt")
    for item in page.models:
        newest = item.newest
        pointed = ", ".join(f"{alias} → {number}" for alias, number in sorted(item.aliases.items()))
        about = [newest.number, _verdict(newest), newest.decision, _change(newest)] if newest else [""] * 4
        table.add_row(*map(escape, [item.name, *about, pointed, newest.prompt if newest else ""]))
    console.print(table)
    if page.token:
        console.print(f"The first {len(page.models)}; more with --limit N, or with a part of the name.")
    return 0


def _show(options: argparse.Namespace, place: dict[str, Any], console: Console) -> int:
    reference: Reference = options.adapter
    if reference.version is not None or reference.alias is not None:
        version = find_version(reference, **place)
        table = _table(str(version), "")
        table.add_row("aliases", escape(", ".join(version.aliases)))
        for name, value in sorted(version.tags.items()):
            table.add_row(escape(name), escape(value))
        console.print(table)
        return 0
    _, found = show_model(reference.name, **place)
    table = _table("version", "verdict", "review", "change of FID", "aliases", "registered", "SHA-256")
    for version in found:
        about = [
            version.number,
            _verdict(version),
            version.decision,
            _change(version),
            ", ".join(version.aliases),
        ]
        table.add_row(*map(escape, [*about, f"{version.created:%Y-%m-%d %H:%M}", version.sha256[:12]]))
    console.print(table)
    return 0


def _diff(options: argparse.Namespace, place: dict[str, Any], console: Console) -> int:
    one, other = fetch_compared((options.one, options.other), **place)
    table = _table("", one.title, other.title)
    for row in compare_records(one, other):
        if row.differs or options.all:
            table.add_row(*map(escape, [row.what, row.one, row.other]))
    console.print(table)
    if options.out:
        console.print(str(write_comparison(one, other, options.out)), markup=False, highlight=False)
    return 0


def _promote(options: argparse.Namespace, place: dict[str, Any], console: Console) -> int:
    reference = Reference.parse(options.name)
    if options.version is not None and reference != Reference(reference.name):
        raise RegistryError(f"{options.name} {options.version}: name the version once")
    chosen: Version | None = None
    if options.version is not None:
        reference = Reference.parse(f"{reference.name}/{options.version}")
    if reference.version is not None or reference.alias is not None:
        chosen = find_version(reference, **place)
    entry = promote(
        reference.name, chosen.number if chosen else None, who=_who(options), why=options.why, **place
    )
    console.print(escape(_told(reference.name, entry)))
    return 0


def _reject(options: argparse.Namespace, place: dict[str, Any], console: Console) -> int:
    reference: Reference = options.adapter
    if reference.version is None and reference.alias is None:
        raise RegistryError(f"{reference}: which version? write {reference}/VERSION or {reference}@candidate")
    number = find_version(reference, **place).number
    entry = reject(reference.name, number, who=_who(options), why=options.why, **place)
    console.print(escape(_told(reference.name, entry)))
    return 0


def _rollback(options: argparse.Namespace, place: dict[str, Any], console: Console) -> int:
    entry = rollback(options.name, who=_who(options), why=options.why, **place)
    console.print(escape(_told(options.name, entry)))
    return 0


def _retire(options: argparse.Namespace, place: dict[str, Any], console: Console) -> int:
    entry = retire(options.name, who=_who(options), why=options.why, **place)
    console.print(
        f"{options.name}/{entry.before} retired by {entry.who}: the base serves its prompt",
        markup=False,
        highlight=False,
    )
    return 0


def _traffic(options: argparse.Namespace, place: dict[str, Any], console: Console) -> int:
    changes = {"mode": options.mode, "challenger": options.challenger, "challenger_share": options.share}
    if any(value is not None for value in changes.values()):
        found = set_traffic(options.name, **changes, **place)
    else:
        found = traffic(options.name, **place)
    share = f", which {found.tags.challenger_share:.0%} of its users get" if found.challenger else ""
    told = f"{options.name}: {found.tags.mode}, challenger {found.challenger or 'none'}{share}"
    console.print(told, markup=False, highlight=False)
    return 0


def _history(options: argparse.Namespace, place: dict[str, Any], console: Console) -> int:
    table = _table("when (UTC)", "decision", "version", "champion before", "who", "why")
    for entry in history(options.name, **place):
        action = entry.action + (" (overriding)" if entry.overridden else "")
        # A move that nobody wrote down is known by where the alias is, not by when it went there.
        when = f"{entry.when:%Y-%m-%d %H:%M:%S}" if entry.recorded else "unknown"
        cells = [when, action, entry.version or "none", entry.before or "none"]
        table.add_row(*map(escape, [*cells, entry.who, entry.why]))
    console.print(table)
    return 0


def _export(options: argparse.Namespace, place: dict[str, Any], console: Console) -> int:
    written = export(options.adapter, options.destination, options.format, **place)
    console.print(str(written), markup=False, highlight=False)
    return 0


def _share(options: argparse.Namespace, place: dict[str, Any], console: Console) -> int:
    shared = share(options.adapter, **place, lifetime=options.minutes)
    console.print(shared.url, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{shared.version}, SHA-256 {shared.sha256}", markup=False, highlight=False)
    console.print(f"expires {shared.expires:%Y-%m-%d %H:%M:%S} UTC; until then it serves whoever has it")
    return 0


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


def _gc(options: argparse.Namespace, place: dict[str, Any], console: Console) -> int:
    found = collect_garbage(**place, older_than=options.older_than, delete=options.delete)
    table = _table("what", "identity", "why", "since (UTC)")
    for garbage in found:
        cells = [garbage.kind, garbage.identity, garbage.why, f"{garbage.since:%Y-%m-%d %H:%M}"]
        table.add_row(*map(escape, cells))
    if found:
        console.print(table)
    console.print(
        f"{len(found)} removed"
        if options.delete
        else f"{len(found)} found; nothing was removed, --delete does"
    )
    return 0


def _table(*headings: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(escape(heading), overflow="fold")
    return table


def _verdict(version: Version) -> str:
    return version.status if version.complete else "registration unfinished"


def _change(version: Version) -> str:
    """The headline figure with its interval and n, by its metric's name."""
    for metric, found in version.scores.items():
        if {"change", "low", "high", "n"} <= found.keys():
            interval = f"[{found['low']:.4g}, {found['high']:.4g}]"
            return f"{found['change']:+.4g} {interval}, n = {found['n']:.0f} ({metric.removeprefix('fid_')})"
    return ""


def _told(name: str, entry: Entry) -> str:
    before = f" (before: {entry.before})" if entry.before and entry.before != entry.version else ""
    return f"{name}/{entry.version} {entry.action} by {entry.who}{before}"


def _who(options: argparse.Namespace) -> str:
    return str(options.who or os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser())


def run(arguments: Sequence[str] | None, place: dict[str, Any], console: Console) -> int:
    """Run one command at `place` (tracking_uri, root), which options may override; returns its exit status."""
    options = parser().parse_args(arguments)
    chosen = dict(place)
    if options.root is not None:
        chosen = {"tracking_uri": None, "root": options.root}
    if options.tracking_uri is not None:
        chosen["tracking_uri"] = options.tracking_uri
    return int(options.run(options, chosen, console))
