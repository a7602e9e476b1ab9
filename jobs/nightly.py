"""Correct what users flagged and people completed: `python -m jobs.nightly [VERDICTS ...] --exemplars FOLDER --out FOLDER`.

Gathers the flagged prompts as `jobs.collect` does. A prompt is complete when the folder of its name in `--exemplars`, local or
on S3, has enough good images and `entry.yaml`, in which people write the rest of its entry in the batch file: `guard_prompts`,
`paraphrases` and so on. The complete ones become the batch `flagged.yaml` in `--out`, with their exemplars beside it; the
others are listed with what they lack. `--submit` submits the batch to the Ray cluster at RAY_API_SERVER_ADDRESS.

Run and submission are named after the day, so a second start on the same day starts nothing; work of earlier nights is taken
from the registry.

Exit status: 0 submitted, or nothing was flagged; 1 no flagged prompt is complete; 2 the user's mistake.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from corrector.errors import UserError
from corrector.exemplars import load_exemplars
from corrector.prompts import load_batch
from corrector.s3 import download, is_s3_url
from jobs.collect import Flagged, add_verdicts_argument, gather, named, read_verdicts
from jobs.inputs.exit_status import tells_mistakes

BATCH = "flagged.yaml"
ENTRY = "entry.yaml"
_CHECKED_RESOLUTION = 64
"""Whether images can be used does not depend on the base's resolution."""


@tells_mistakes
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    verdicts = [verdict for source in options.verdicts for verdict in read_verdicts(source)]
    since = time.time() - options.days * 24 * 3600
    flagged = gather(verdict for verdict in verdicts if verdict.given >= since)
    if not flagged:
        print(f"nothing was flagged in the last {options.days} days")
        return 0
    folder: Path = options.out
    folder.mkdir(parents=True)
    complete = []
    for name, one in named(flagged).items():
        try:
            complete.append(complete_entry(name, one, options.exemplars, folder))
            print(f"{name}: complete")
        except UserError as error:
            shutil.rmtree(folder / "exemplars" / name, ignore_errors=True)
            print(f"{name}: left out, flagged {one.count} times: {error}")
    if not complete:
        return 1
    _write(folder, complete, options.base)
    run = f"nightly-{datetime.now(UTC):%Y-%m-%d}"
    command = f"python -m jobs.correct {BATCH} --run-id {run}"
    if options.gpus:
        command += f" --gpus {options.gpus}"
    if options.submit:
        submit(run, command, folder)
    else:
        print(f"cd {shlex.quote(str(folder))} && {command}")
    return 0


def complete_entry(name: str, one: Flagged, exemplars: str, folder: Path) -> dict[str, Any]:
    """Fetch the exemplars of a prompt into `folder` and return its entry of the batch file.

    Raises:
        UserError: It lacks something; the message says what.
    """
    images = folder / "exemplars" / name
    if is_s3_url(exemplars):
        download(f"{exemplars.rstrip('/')}/{name}/", images)
    elif (source := Path(exemplars) / name).is_dir():
        shutil.copytree(source, images)
    else:
        raise UserError(f"no folder {source}")
    if not (written := images / ENTRY).is_file():
        raise UserError(f"no {ENTRY} beside the images; write guard_prompts there, and paraphrases")
    try:
        given = yaml.safe_load(written.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{ENTRY}: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict):
        raise UserError(f"{ENTRY}: expected keys of an entry of a batch file, such as guard_prompts")
    written.unlink()  # not an image
    own = {"name": name, "prompt": one.prompt, "exemplars": f"exemplars/{name}"}
    entry = {"priority": min(one.count, 1000), **given, **own}
    load_batch(_write(folder, [entry], "embedded"))
    load_exemplars(images, resolution=_CHECKED_RESOLUTION)
    return entry


def submit(run: str, command: str, folder: Path) -> None:
    """Submit `command` in `folder` to the Ray cluster, unless the submission `run` is there already."""
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(os.environ.get("RAY_API_SERVER_ADDRESS"))
    if any(job.submission_id == run for job in client.list_jobs()):
        print(f"{run} was submitted before")
        return
    client.submit_job(entrypoint=command, submission_id=run, runtime_env={"working_dir": str(folder)})
    print(f"submitted {run}: `ray job logs {run} --follow`")


def _write(folder: Path, entries: Iterable[dict[str, Any]], base: str) -> Path:
    path = folder / BATCH
    content = {"base": base, "prompts": list(entries)}
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jobs.nightly", description=__doc__.split("\n", 1)[0])
    add_verdicts_argument(parser)
    parser.add_argument(
        "--exemplars", required=True, help="folder or s3:// URL with a folder for each prompt"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder for the batch")
    parser.add_argument("--base", default="embedded", help="base of the batch")
    parser.add_argument(
        "--days", type=int, default=14, metavar="N", help="of verdicts (default: %(default)s)"
    )
    parser.add_argument(
        "--gpus", type=int, default=0, metavar="N", help="GPUs that the job asks the cluster for"
    )
    parser.add_argument(
        "--submit", action="store_true", help="submit the batch; without it, say how to run it"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
