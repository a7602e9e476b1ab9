"""Judges a set of exemplars before anything trains on it.

`python -m corrector.exemplars.curation FOLDER --resolution N [--prompt TEXT --judge NAME] [--page FILE.html]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from corrector.errors import UserError
from corrector.exemplars.files import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the verdicts; 0 where the set is effective or doubtful, 1 where it is not, 2 for a user's mistake."""
    options = _parser().parse_args(arguments)
    try:
        return _curate(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _curate(options: argparse.Namespace) -> int:
    from corrector.evaluation.feature_memory import FeatureMemory
    from corrector.evaluation.verdicts import named_judge
    from corrector.exemplars.curation import Curation, Decisions, curate_folder
    from corrector.exemplars.curation.page import write_review_page
    from corrector.exemplars.files import Limits
    from corrector.files import write_atomically
    from corrector.settings import Settings

    if options.judge and not options.prompt:
        raise UserError("--judge: needs --prompt, about which the judge is asked")
    curation: Curation = curate_folder(
        options.folder,
        resolution=options.resolution,
        memory=FeatureMemory(judge=named_judge(options.judge)),
        fit=options.fit,
        prompt=options.prompt,
        decisions=Decisions.load(*options.decisions),
        limits=Limits(roots=Settings.from_environment().exemplar_roots),
    )
    for each in curation.images:
        decision = f" ({each.decision.decision} by {each.decision.by})" if each.decision else ""
        reasons = "".join(f"; {reason}" for reason in each.reasons)
        print(printable(f"{each.grade}{decision}  {each.name}{reasons}"))
    for sentence in curation.teaches:
        print(f"can teach: {sentence}")
    for sentence in curation.lacks:
        print(f"cannot teach, or not known: {sentence}")
    reasons = "".join(f"; {reason}" for reason in curation.reasons)
    print(f"the set is {curation.grade}, {len(curation.used)} of {len(curation.images)} images used{reasons}")
    try:
        if options.page:
            title = f"Exemplars: {options.prompt or options.folder.resolve().name}"
            print(f"page {printable(str(write_review_page(curation, options.page, title=title)))}")
        if options.write_decisions:
            text = curation.decided().model_dump_json(indent=2) + "\n"
            print(f"decisions {printable(str(write_atomically(options.write_decisions, text)))}")
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from None
    return 1 if curation.grade == "not effective" else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m corrector.exemplars.curation", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder that holds the images")
    parser.add_argument(
        "--resolution", type=_positive, required=True, help="pixels a side, as the base draws them"
    )
    parser.add_argument(
        "--fit",
        choices=("crop", "pad"),
        default="crop",
        help="how images become squares, as exemplar_fit (crop)",
    )
    parser.add_argument("--prompt", help="what the images should show, for a judge and the page's title")
    parser.add_argument("--judge", help="judge of images that an installed package registers under this name")
    parser.add_argument("--page", type=Path, help="where to write the review page (.html)")
    parser.add_argument(
        "--decisions",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a file that the review page saved; may be given several times",
    )
    parser.add_argument(
        "--write-decisions",
        type=Path,
        help="where to write those decisions, and a drop for each other image that is not effective",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
