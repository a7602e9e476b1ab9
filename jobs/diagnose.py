"""Find which prompts fail: `ray job submit --working-dir . -- python -m jobs.diagnose PROMPTS --out batch.yaml --yes`.

Groups near-identical prompts, draws images of each with the base on the cluster, lets detectors judge them, and stops a prompt
where the interval of its failure rate lies wholly above or below `--fails-at`. Prints a ranked table, and writes
`diagnosis.json` and `diagnosis.html` into the run's folder and a batch file of the prompts that fail. A later correction of
them finds the base's images drawn. Submitting again draws and asks nothing that is kept.

Detectors are `vision-language` (a model behind an OpenAI-compatible API, by CORRECTOR_JUDGE_URL, _MODEL, _PRICE, _BUDGET and
_KEY), `exemplar-distance` (for a batch file), `onnx:FILE@THRESHOLD`, and judges of installed packages. Nothing is sent
to an API before the cost was confirmed, at the terminal or by --yes.

Exit status: 0 every prompt fails or holds; 1 some are undecided; 2 the user's mistake, nothing was started; 130 stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from corrector.settings import Settings
from jobs.inputs.exit_status import tells_mistakes


@tells_mistakes
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    from corrector.detectors.paid_chat import sending_is_confirmed
    from jobs.diagnosis.driver import DiagnosisJob, check_work

    work = check_work(
        options.prompts,
        storage=options.storage,
        out=options.out,
        run=options.run_id,
        base=options.base,
        precision=options.precision,
        detectors=options.detector,
        images=options.images,
        fails_at=options.fails_at,
        page=options.page,
        exemplars=options.exemplars,
    )
    for said in work.sends:
        console.print(said, markup=False, highlight=False)
    if work.sends and not (options.yes or sending_is_confirmed()):
        print("nothing was sent; add --yes to judge")
        return 1
    return DiagnosisJob(work, console).run()


def _parser() -> argparse.ArgumentParser:
    settings = Settings.from_environment()
    parser = argparse.ArgumentParser(prog="python -m jobs.diagnose", description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add(
        "prompts",
        help=".txt (one a line), .csv (column prompt), a batch file, or the endpoint's verdicts (a database or .jsonl)",
    )
    add(
        "--out", type=Path, required=True, metavar="FILE", help="batch file to write of the prompts that fail"
    )
    add("--base", help="base model (default: the batch file's, or embedded)")
    add("--precision", default="auto", help="fp32, bf16, nf4, or auto, as for jobs.correct")
    add(
        "--detector",
        action="append",
        default=[],
        metavar="NAME",
        help="vision-language, exemplar-distance, onnx:FILE@THRESHOLD or an installed judge; of several, the first "
        "that can judge a prompt decides (default: all that are configured but exemplar-distance)",
    )
    add(
        "--images",
        type=int,
        default=32,
        help="most images of a prompt, a multiple of 8 (default: %(default)s)",
    )
    add(
        "--fails-at",
        type=_share,
        default=0.2,
        metavar="SHARE",
        help="share of wrong images from which a prompt fails (default: %(default)s)",
    )
    add("--page", type=Path, metavar="FILE", help="write the page with the images there, too")
    add(
        "--exemplars",
        default="exemplars",
        help="folder, beside the batch file, with a folder for each prompt",
    )
    add("--run-id", help="name of the run's folder (default: the name of PROMPTS)")
    add(
        "--storage",
        default=settings.storage,
        help="where runs are kept: a folder that every node sees, or s3://BUCKET/PREFIX (default: %(default)s)",
    )
    add("--yes", action="store_true", help="send images to the API without asking")
    return parser


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a share between 0 and 1, such as 0.2")
    return share


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    sys.exit(main())
