"""Surveys: which of two images do people prefer? `python -m corrector.preference COMMAND`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from corrector.errors import UserError
from corrector.exemplars.files import printable
from corrector.preference.survey import MIN_KAPPA, MIN_PAIRS
from corrector.preference.survey_folder import open_survey

_MAX_NAME = 200
_WIDTH = 200
"""Of a table in a file or a pipe."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0: done, 1: the survey was closed before, or the judge did not finish, 2: the user must act."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except UserError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m corrector.preference", description=__doc__.partition("`")[0]
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: object, what: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
        added.set_defaults(run=run)
        added.add_argument("survey", type=Path, metavar="SURVEY", help="the survey's folder")
        if name not in ("make", "judge"):
            added.add_argument(
                "--database",
                metavar="URL",
                help="SQLAlchemy URL of the votes (default: CORRECTOR_DATABASE, or SQLite in the survey's folder)",
            )
        return added

    making = command("make", _make, "make a survey from a run, or from registered versions")
    source = making.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--from-run", type=Path, metavar="FOLDER", help="a run's folder, or any folder of records"
    )
    source.add_argument(
        "--version", metavar="NAME/3", help="a registered version beside the base, or beside --against"
    )
    making.add_argument("--against", metavar="NAME/2", help="the version that --version is compared with")
    making.add_argument("--title", default="Which picture is better?", help='raters see it ("%(default)s")')
    making.add_argument("--pairs", type=_count, default=40, help="pairs at most (%(default)s)")
    making.add_argument("--checks", type=_count, default=4, help="attention checks (%(default)s)")
    making.add_argument("--repeats", type=float, default=0.1, help="share of pairs shown twice (%(default)s)")
    making.add_argument(
        "--seed", type=int, default=0, help="of the pairs and every rater's order (%(default)s)"
    )

    links = command("links", _links, "print one link for each rater; a name has the same link again")
    links.add_argument("names", nargs="+", metavar="NAME", help="a rater's name, which only you see")
    links.add_argument(
        "--address", default="http://127.0.0.1:8080", help="of the survey's page (%(default)s)"
    )
    progress = command("progress", _progress, "how far every rater is")
    progress.add_argument(
        "--follow", type=float, metavar="SECONDS", help="print it again until the survey is closed"
    )
    command("close", _close, "take no more votes")
    exporting = command("export", _export, "write the votes to a file")
    exporting.add_argument("file", type=Path, metavar="FILE")
    exporting.add_argument(
        "--format", choices=("votes", "label-studio"), default="votes",
        help="votes: JSON lines that `import` reads; label-studio: tasks for Label Studio (%(default)s)",
    )  # fmt: skip
    importing = command("import", _import, "store the votes of an export")
    importing.add_argument("file", type=Path, metavar="FILE")
    forgetting = command("forget", _forget, "delete a rater's name and link; the votes stay")
    forgetting.add_argument("name", metavar="NAME")
    analysis = command("analyse", _analyse, "which arm is preferred, and how sure that is")
    analysis.add_argument("--out", type=Path, metavar="FILE", help="write the analysis as JSON, too")
    analysis.add_argument(
        "--smallest-effect",
        type=float,
        default=0.2,
        help="difference that matters, from 0 to 1 (%(default)s)",
    )
    _add_judge_commands(command)
    return top


def _add_judge_commands(command: Callable[[str, object, str], argparse.ArgumentParser]) -> None:
    judging = command("judge", _judge, "ask a vision-language model which arm it prefers")
    judging.add_argument("--yes", action="store_true", help="send images to the API without asking")
    judging.add_argument(
        "--images", action="store_true",
        help="let the gate's judge vision-language judge each image, too, so that `agree` compares it with people",
    )  # fmt: skip
    agreement = command("agree", _agree, "how far the judge agrees with people, and whether it is trusted")
    agreement.add_argument(
        "--kappa", type=_kappa, default=MIN_KAPPA, help="Cohen's kappa from which it is trusted (%(default)s)"
    )
    agreement.add_argument(
        "--pairs", type=_count, default=MIN_PAIRS, help="pairs that trust needs (%(default)s)"
    )
    attachment = command("attach", _attach, "store the results with a registered version")
    attachment.add_argument("version", metavar="NAME/VERSION", help='the registered version that is arm "b"')
    attachment.add_argument(
        "--tracking-uri", help="an MLflow server (default: MLFLOW_TRACKING_URI, else the local registry)"
    )
    attachment.add_argument(
        "--root", type=Path, help="folder of the local registry (default: registry in CORRECTOR_RUNS)"
    )


def _make(options: argparse.Namespace) -> int:
    from corrector.preference.making import SurveyPlan, make_survey
    from corrector.preference.sources import of_run, of_versions, survey_id

    if options.against and not options.version:
        raise UserError("--against: needs --version, which it is compared with")
    if not 0 <= options.repeats <= 1:
        raise UserError(f"--repeats: {options.repeats:g} is no share; give a number from 0 to 1")
    if not 0 < len(options.title) <= _MAX_NAME:
        raise UserError(f"--title: give 1 to {_MAX_NAME} characters")
    with (
        of_run(options.from_run)
        if options.from_run
        else of_versions(options.version, options.against) as source
    ):
        plan = SurveyPlan(
            id=survey_id(options.survey),
            title=options.title,
            arms=source.arms,
            adapters=source.adapters,
            seed=options.seed,
            pairs=options.pairs,
            checks=options.checks,
            repeats=options.repeats,
        )
        survey = make_survey(source.pairs, options.survey, plan)
    checks = sum(pair.expected is not None for pair in survey.pairs)
    print(printable(f"{options.survey}: {len(survey.pairs) - checks} pairs, {checks} attention checks"))
    return 0


def _links(options: argparse.Namespace) -> int:
    from corrector.preference.links import Links

    for name in options.names:
        if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
            raise UserError(f"{name!r}: is no name; give 1 to {_MAX_NAME} printable characters")
    with open_survey(options.survey, options.database) as (survey, store):
        links = Links(options.survey, survey.id)
        for name in options.names:
            link = store.add_rater(name).link
            assert link is not None
            print(f"{name}\t{options.address.rstrip('/')}/{links.token(link)}/")
    return 0


def _progress(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from corrector.preference.showing import showings

    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    with open_survey(options.survey, options.database) as (survey, store):
        while True:
            closed = store.closed()
            table = Table(title=Text(f"{survey.title} ({'open' if closed is None else 'closed'})"))
            for heading in ("rater", "answered", "of", "browsers", "last answer"):
                table.add_column(heading)
            for each in store.progress():
                last = (
                    ""
                    if each.last is None
                    else f"{datetime.fromtimestamp(each.last, UTC):%Y-%m-%d %H:%M} UTC"
                )
                name = each.rater.name or f"forgotten ({each.rater.pseudonym})"
                total = len(showings(survey, each.rater.pseudonym))
                figures = (str(each.answered), str(total), str(each.browsers))
                table.add_row(Text(printable(name)), *figures, last)
            console.print(table)
            if options.follow is None or closed is not None:
                return 0
            time.sleep(max(1.0, options.follow))


def _close(options: argparse.Namespace) -> int:
    with open_survey(options.survey, options.database) as (survey, store):
        if store.close():
            print(f"{survey.id}: closed")
            return 0
        print(f"{survey.id}: was closed before")
        return 1


def _export(options: argparse.Namespace) -> int:
    from corrector.preference.exchange import export_label_studio, export_votes

    with open_survey(options.survey, options.database) as (survey, store):
        if options.format == "votes":
            print(printable(f"{options.file}: {export_votes(store, options.file)} votes"))
        else:
            configuration = export_label_studio(survey, store.ballots(), options.file)
            print(printable(f"{options.file}: {len(survey.pairs)} tasks; configuration {configuration}"))
    return 0


def _import(options: argparse.Namespace) -> int:
    from corrector.preference.exchange import import_votes

    with open_survey(options.survey, options.database) as (_, store):
        print(printable(f"{options.file}: {import_votes(store, options.file)} new votes"))
    return 0


def _forget(options: argparse.Namespace) -> int:
    with open_survey(options.survey, options.database) as (survey, store):
        store.forget(options.name)
        print(f"{survey.id}: one rater is forgotten; the votes stay")
    return 0


def _analyse(options: argparse.Namespace) -> int:
    from corrector.preference.analyse_command import main_analyse

    return main_analyse(
        options.survey, options.database, options.out, smallest_effect=options.smallest_effect
    )


def _judge(options: argparse.Namespace) -> int:
    from corrector.preference.judge_command import main_judge

    return main_judge(options.survey, yes=options.yes, images=options.images)


def _agree(options: argparse.Namespace) -> int:
    from corrector.preference.judge_command import main_agree

    return main_agree(options.survey, options.database, min_kappa=options.kappa, min_pairs=options.pairs)


def _attach(options: argparse.Namespace) -> int:
    from corrector.preference.attach_command import main_attach

    return main_attach(
        options.survey,
        options.database,
        options.version,
        tracking_uri=options.tracking_uri,
        root=options.root,
    )


def _kappa(text: str) -> float:
    kappa = float(text)
    if not -1 <= kappa <= 1:
        raise argparse.ArgumentTypeError("expected a number from -1 to 1")
    return kappa


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("expected no negative number")
    return number


if __name__ == "__main__":
    sys.exit(main())
