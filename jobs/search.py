"""Search hyper-parameters of a batch: `ray job submit --working-dir . -- python -m jobs.search BATCH`.

Tries configurations for every prompt of the batch (section `search` of the batch file), many at a time in the slots of
shared lanes, scores them against held-out exemplars while they train, and spends little on those that fall behind. The best
are scored again on fresh seeds; what is chosen goes through the same sampling, gate and registration as a correction, and is
written back as a batch file. A search that was killed goes on with `--resume`.

Exit status: 0 all prompts corrected; 1 some were not; 2 the user's mistake, nothing was started; 130 stopped before the end.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rich.console import Console

from corrector.errors import UserError
from jobs.correct import add_common_arguments, check_registry


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        from corrector.exemplars.curation import Decisions
        from jobs.inputs.batch import check_batch
        from jobs.tuning.plan import check_search_work

        work = check_batch(
            options.batch,
            storage=options.storage,
            run=options.run_id or f"{options.batch.stem}-search",
            base=options.base,
            precision=options.precision,
            decisions=Decisions.load(*options.decisions),
            accept_exemplars=options.accept_exemplars,
        )
        check_search_work(work)
        check_registry(work.run.storage, options.tracking_uri)
        if options.watch:
            from jobs.tuning.watch import watch

            watch(work, console)
            return 0
        from jobs.lanes.plan import LaneLimits
        from jobs.tuning.driver import SearchJob

        limits = LaneLimits(options.lanes, options.slots, gpus=options.gpus)
        job = SearchJob(
            work,
            console,
            limits=limits,
            tracking_uri=options.tracking_uri,
            resume=options.resume,
            warm_start=not options.no_warm_start,
        )
        return job.run()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jobs.search", description=__doc__.split("\n", 1)[0])
    add_common_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the trials in the run's folder")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="start nothing: show the trials of this search as it runs elsewhere, or as it ended",
    )
    parser.add_argument(
        "--no-warm-start",
        action="store_true",
        help="do not begin with what earlier searches on the same base chose (by MLflow)",
    )
    return parser


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    sys.exit(main())
