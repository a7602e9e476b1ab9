"""Starts and stops all servers of one machine: the object store, MLflow, which keeps artifacts in it, and a Ray head.

    python -m cluster.services up | down | status
    eval "$(python -m cluster.services env)"    what programs need to use object store and MLflow

`up` leaves servers that run as they are. `down` keeps all data, and the next `up` serves it again.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from cluster import head as heads
from cluster import mlflow_server, object_store
from cluster.head import Head, HeadOptions
from cluster.mlflow_server import MlflowOptions, MlflowServer
from cluster.object_store import ObjectStore
from cluster.shell import exports
from cluster.state_folder import SERVERS_FOLDER, locked
from corrector.errors import UserError

# Each of these configures the user's own S3.
_S3_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)


@dataclass(frozen=True)
class States:
    """The state folders: that of the Ray head, and the parent of those of object store and MLflow."""

    servers: Path = SERVERS_FOLDER
    head: Path = heads.STATE

    @property
    def objects(self) -> Path:
        return self.servers / "objects"

    @property
    def mlflow(self) -> Path:
        return self.servers / "mlflow"


@dataclass(frozen=True)
class Services:
    """The running servers; None for a server that does not run."""

    store: ObjectStore | None
    mlflow: MlflowServer | None
    head: Head | None

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which programs use object store and MLflow."""
        return {
            **(self.store.environment if self.store else {}),
            **(self.mlflow.environment if self.mlflow else {}),
        }

    def job_environment(self, caller: Mapping[str, str]) -> dict[str, str]:
        """The variables for S3 and MLflow of a job whose caller has the environment `caller`.

        If `caller` configures another S3 or MLflow, the job uses that, and the result contains its variables.
        """
        caller = {name: value for name, value in caller.items() if value}
        variables = {name: caller[name] for name in caller if name.startswith(("AWS_", "MLFLOW_TRACKING_"))}
        if self.store is not None and not _has_s3(caller):
            variables |= self.store.environment
        if self.mlflow is not None and "MLFLOW_TRACKING_URI" not in caller:
            for name in mlflow_server.CONFLICTING_VARIABLES:
                variables.pop(name, None)
            variables |= self.mlflow.environment
        return variables


def up(mlflow_options: MlflowOptions, head_options: HeadOptions, *, states: States) -> Services:
    """Start the servers that do not run; return when all answer.

    Args:
        mlflow_options: Options of MLflow; `store` is ignored, since MLflow uses the object store of `states`.

    Raises:
        UserError: A server does not start, or runs with other options; the servers that this call started are stopped.
    """
    with locked(states.servers), ExitStack() as started:
        store = object_store.current(states.objects)
        if store is None:
            store = object_store.start(state=states.objects)
            started.callback(object_store.stop, store, state=states.objects)
        mlflow = mlflow_server.current(states.mlflow)
        if mlflow is not None and mlflow.s3_endpoint not in (None, store.endpoint):
            mlflow_server.stop(mlflow, state=states.mlflow)  # its object store has ended
            mlflow = None
        if mlflow is None:
            mlflow = mlflow_server.start(replace(mlflow_options, store=store), state=states.mlflow)
            started.callback(mlflow_server.stop, mlflow, state=states.mlflow)
        else:
            mlflow_server.require_options(mlflow, mlflow_options)
        head = heads.current(states.head)
        if head is None:
            head = heads.start(head_options, state=states.head)
        started.pop_all()
    return Services(store, mlflow, head)


def down(*, states: States) -> int:
    """Stop all servers, in reverse order, and return the number of their processes."""
    with locked(states.servers):
        running = current(states=states)
        ended = heads.stop(running.head, state=states.head) if running.head else 0
        ended += mlflow_server.stop(running.mlflow, state=states.mlflow) if running.mlflow else 0
        return ended + (object_store.stop(running.store, state=states.objects) if running.store else 0)


def current(*, states: States) -> Services:
    return Services(
        object_store.current(states.objects),
        mlflow_server.current(states.mlflow),
        heads.current(states.head) if states.head.exists() else None,
    )


def _has_s3(environment: Mapping[str, str]) -> bool:
    home = Path(environment["HOME"]) / ".aws" if "HOME" in environment else None
    return any(name in environment for name in _S3_VARIABLES) or (
        home is not None and any((home / name).exists() for name in ("config", "credentials"))
    )


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status (2: the user can put it right, 3: not all of them are running)."""
    options = _parser().parse_args(arguments)
    states = States(options.state, options.head_state)
    try:
        if options.command == "up":
            return _up(options, states)
        if options.command == "down":
            print(
                f"stopped all servers: {down(states=states)} processes ended, data kept in {states.servers}"
            )
            return 0
        running = current(states=states)
        if options.command == "status":
            return _describe(running, states)
        if not running.environment:
            print("neither object store nor MLflow is running", file=sys.stderr)
            return 3
        unset = (*object_store.CONFLICTING_VARIABLES, *mlflow_server.CONFLICTING_VARIABLES)
        print("\n".join(exports(running.environment, unset=unset)))
        return 0
    except UserError as error:
        print(f"services: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _up(options: argparse.Namespace, states: States) -> int:
    began = time.monotonic()
    running = up(mlflow_server.options_of(options), HeadOptions(), states=states)
    status = _describe(running, states)
    print(f"ready in {time.monotonic() - began:.0f} s")
    return status


def _describe(running: Services, states: States) -> int:
    described = [
        running.store and object_store.describe(running.store, states.objects),
        running.mlflow and mlflow_server.describe(running.mlflow, states.mlflow),
        running.head and heads.describe(running.head),
    ]
    names = ("the object store", "MLflow", "the Ray head")
    for name, lines in zip(names, described, strict=True):
        print(lines or f"{name} is not running")
    if running.environment:
        print('to use object store and MLflow: eval "$(python -m cluster.services env)"')
    return 0 if all(described) else 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cluster.services",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument(
        "--state",
        type=Path,
        default=SERVERS_FOLDER,
        help="folder of what object store and MLflow keep (default: %(default)s)",
    )
    state.add_argument(
        "--head-state",
        type=Path,
        default=heads.STATE,
        help="the Ray head's state folder (default: %(default)s)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    up_command = commands.add_parser("up", parents=[state], help="start what does not run")
    mlflow_server.add_options(up_command, port="--mlflow-port")
    commands.add_parser("down", parents=[state], help="stop all of them; data stays")
    commands.add_parser("status", parents=[state], help="show which run, and where")
    commands.add_parser("env", parents=[state], help="print the shell's export lines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
