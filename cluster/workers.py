"""GPU workers for one job, on a cluster that may have none yet: the entry point of a job on an autoscaled cluster.

    python -m cluster.workers --gpus 4 -- python -m jobs.correct prompts.yaml

A job plans with the GPUs that it finds. This asks the autoscaler for so many, waits for the first, runs the command, and takes
the request back when it ends; idle workers then leave by the cluster's time limit. A job uses workers that come later, too.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from corrector.errors import UserError

POLL_S = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, or 2 where no GPU came."""
    options = _parser().parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        if not address or not command:
            raise UserError(
                "expected a command after --" if address else "RAY_ADDRESS is not set; submit this to Ray"
            )
        request(address, options.gpus)
        try:
            await_gpu(address, options.wait)
            # Ray sends the signals of `ray job stop` to the command as well, which saves its state.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: None)
            return subprocess.run(command, check=False).returncode
        finally:
            request(address, 0)
    except UserError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 2


def request(address: str, gpus: int) -> None:
    """Ask the autoscaler of the cluster at the GCS `address` to have `gpus` GPUs; replaces the request before."""
    from ray.autoscaler.v2.sdk import request_cluster_resources

    request_cluster_resources(address, [{"resources": {"CPU": 1, "GPU": 1}}] * gpus)


def await_gpu(address: str, seconds: float) -> None:
    """Return when the cluster has a GPU.

    Raises:
        UserError: It has none after `seconds`.
    """
    from ray.autoscaler.v2.sdk import get_cluster_status

    until = time.monotonic() + seconds
    while True:
        usage = get_cluster_status(address).cluster_resource_usage
        if any(each.resource_name == "GPU" and each.total >= 1 for each in usage):
            return
        if time.monotonic() > until:
            raise UserError(
                f"no GPU joined the cluster within {seconds:g} s; look at the pending pods of its worker groups "
                "(quota, spot capacity, node labels), or wait longer with --wait"
            )
        time.sleep(min(POLL_S, seconds))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster.workers", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--gpus", type=int, required=True, metavar="N", help="GPUs to ask for")
    parser.add_argument(
        "--wait",
        type=float,
        default=1800,
        metavar="SECONDS",
        help="for the first of them (default: %(default)g)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    return parser


if __name__ == "__main__":
    sys.exit(main())
