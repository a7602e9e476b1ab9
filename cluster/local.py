"""A Ray head on this machine, from the command line.

    python -m cluster.local run -- python -m jobs.correct jobs/examples/people.yaml
    python -m cluster.local start | status | stop

`run` replaces itself by a command that is a driver of Ray: of the head that `start` left running, or of a Ray
instance that the command's `ray.init()` starts and that ends with it. Where `python -m cluster.services up` has left
an object store and MLflow, the command uses these, unless the environment names others.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from cluster import head as heads
from cluster import local_instance, services
from cluster.head import HeadOptions
from cluster.state_folder import SERVERS_FOLDER
from corrector.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status (2: the user can put it right, 3: `status` found no head)."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except UserError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _start(options: argparse.Namespace) -> int:
    running = heads.current(options.state)
    if running is None:
        wanted = replace(
            _resources(options),
            port=options.port,
            dashboard_port=options.dashboard_port,
            start_limit_s=options.start_limit,
        )
        running = heads.start(wanted, state=options.state)
    print(heads.describe(running))
    return 0


def _stop(options: argparse.Namespace) -> int:
    running = heads.current(options.state)
    if running is None:
        print("no local head is running")
        return 0
    ended = heads.stop(running, state=options.state)
    print(f"stopped the local head: {ended} processes ended, logs kept in {options.state / 'logs'}")
    return 0


def _status(options: argparse.Namespace) -> int:
    running = heads.current(options.state)
    if running is None:
        print("no local head is running")
        return 3
    print(heads.describe(running))
    return 0


def _run(options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise UserError("run: no command; write it after `--`, as in `run -- python -m jobs.correct BATCH`")
    running = services.current(states=services.States(options.services, options.state))
    variables = running.job_environment(os.environ)
    for name, value in running.environment.items():
        if name.endswith(("_URI", "_URL")) and variables[name] == value:
            print(f"cluster: {name}={value}", file=sys.stderr, flush=True)
    if running.head is not None:
        variables = running.head.driver_environment(variables)
    else:
        variables = local_instance.environment(_resources(options), options.state) | variables
    try:
        os.execvpe(command[0], command, os.environ | variables)  # noqa: S606 - the user's own command
    except OSError as error:
        raise UserError(f"run: {command[0]}: {error.strerror}") from error


def _resources(options: argparse.Namespace) -> HeadOptions:
    return HeadOptions(
        num_cpus=options.num_cpus,
        num_gpus=options.num_gpus,
        object_store_bytes=options.object_store_mib * 1024**2,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cluster.local",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument(
        "--state",
        type=Path,
        default=heads.STATE,
        help="folder of the state file, token and logs (default: %(default)s)",
    )
    resources = argparse.ArgumentParser(add_help=False)
    resources.add_argument("--num-cpus", type=int, help="CPUs to offer (default: the machine's)")
    resources.add_argument("--num-gpus", type=int, help="GPUs to offer (default: the machine's)")
    resources.add_argument(
        "--object-store-mib",
        type=int,
        default=heads.OBJECT_STORE_BYTES >> 20,
        help="MiB (default: %(default)s)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    start = commands.add_parser("start", parents=[state, resources], help="start a head that stays")
    start.add_argument("--port", type=int, help="port of the head (default: one that is free)")
    start.add_argument(
        "--dashboard-port", type=int, help="port of dashboard and jobs (default: one that is free)"
    )
    start.add_argument(
        "--start-limit",
        type=float,
        default=heads.START_LIMIT_S,
        help="seconds to be ready in (default: %(default)g)",
    )
    start.set_defaults(run=_start)
    commands.add_parser("status", parents=[state], help="show the running head").set_defaults(run=_status)
    commands.add_parser("stop", parents=[state], help="stop the head and all that runs for it").set_defaults(
        run=_stop
    )
    run = commands.add_parser("run", parents=[state, resources], help="run a command as a driver of Ray")
    run.add_argument(
        "--services",
        type=Path,
        default=SERVERS_FOLDER,
        help="state folder of the object store and MLflow that the job may use (default: %(default)s)",
    )
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    run.set_defaults(run=_run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
