"""Correct a batch of failing prompts: `ray job submit --working-dir . -- python -m jobs.correct BATCH`.

Checks the whole batch before anything starts, encodes what all lanes share, trains packs of fine-tunes in lanes on Ray Train,
scores each against the base, registers it, and writes `result.json` and `report.html` into the run's folder. Submitting the
same batch again finishes what is missing and repeats nothing; work that another run has registered is taken from the
registry, record and all, and not trained again.

Exit status: 0 all prompts corrected; 1 some were not; 2 the user's mistake, nothing was started; 130 stopped before the end.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from corrector.errors import UserError
from corrector.settings import Settings
from corrector.storage import Storage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        # Imported after the check: Ray, MLflow and torch take seconds, and mistakes should be reported at once.
        from corrector.exemplars.curation import Decisions
        from jobs.inputs.batch import check_batch

        work = check_batch(
            options.batch,
            storage=options.storage,
            run=options.run_id,
            base=options.base,
            precision=options.precision,
            decisions=Decisions.load(*options.decisions),
            accept_exemplars=options.accept_exemplars,
        )
        check_registry(work.run.storage, options.tracking_uri)
        from jobs.lanes.plan import LaneLimits, print_plan

        limits = LaneLimits(options.lanes, options.slots, options.workers, gpus=options.gpus)
        if options.plan:
            print_plan(work, console, limits)
            return 0
        from jobs.correction.driver import CorrectionJob

        return CorrectionJob(
            work,
            console,
            limits=limits,
            tracking_uri=options.tracking_uri,
            checkpoint_seconds=options.checkpoint_seconds,
        ).run()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jobs.correct", description=__doc__.split("\n", 1)[0])
    add_common_arguments(parser)
    parser.add_argument("--plan", action="store_true", help="print what would run, and stop")
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=20.0,
        help="seconds of training that a lane may lose when it dies (default: %(default)g)",
    )
    parser.add_argument(
        "--workers",
        type=_positive,
        default=1,
        help="workers of a lane, each with its own GPU, which share its rows: for a base too slow on one (default: 1)",
    )
    return parser


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `jobs.correct` and `jobs.search` share."""
    settings = Settings.from_environment()
    parser.add_argument("batch", type=Path, help="YAML, JSON, JSONL or CSV file of failing prompts")
    parser.add_argument(
        "--base",
        help="base model, instead of the batch's: embedded, a folder, a hub id (owner/name@revision), a single "
        ".safetensors file, or an s3:// URL of either",
    )
    parser.add_argument(
        "--precision",
        default="auto",
        help="how the base lies in memory: fp32, bf16, nf4, or auto, which is bf16 on a GPU and fp32 on a CPU",
    )
    parser.add_argument("--run-id", help="name of the run's folder (default: the batch file's name)")
    parser.add_argument(
        "--storage",
        default=settings.storage,
        help="where runs are kept: a folder that every node sees, or s3://BUCKET/PREFIX (default: %(default)s)",
    )
    parser.add_argument(
        "--tracking-uri", default=settings.tracking_uri, help="MLflow server (default: local)"
    )
    parser.add_argument(
        "--lanes", type=_positive, help="most lanes at once (default: what the cluster has room for)"
    )
    parser.add_argument(
        "--slots", type=_positive, help="fine-tunes in a lane at once (default: what memory holds)"
    )
    parser.add_argument(
        "--gpus",
        type=_positive,
        default=0,
        help="GPUs that the cluster's autoscaler may bring, from zero; lanes wait for them (default: those that are there)",
    )
    parser.add_argument(
        "--decisions",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="which exemplars to drop or to keep, as the review page of corrector.exemplars.curation saved it; may be given "
        "several times",
    )
    parser.add_argument(
        "--accept-exemplars",
        action="store_true",
        help="train on exemplars that are not effective, too, without checking them",
    )


def check_registry(storage: Storage, tracking_uri: str | None) -> None:
    """Raises UserError where results could not be registered: the local registry lies in a folder."""
    if storage.is_on_s3 and tracking_uri is None:
        raise UserError(
            f"--storage {storage.root}: runs on S3 are registered on an MLflow server; "
            "name it by --tracking-uri or in MLFLOW_TRACKING_URI"
        )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number of at least 1")
    return value


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    sys.exit(main())
