"""An MLflow server on this machine: runs, registered adapters and their artifacts, on loopback only.

    python -m cluster.mlflow_server start | stop | status
    eval "$(python -m cluster.mlflow_server env)"    what MLflow's clients need to reach it

Its database is a SQLite file unless a URL is given. Artifacts go through the server to S3, by default to the object
store of this project, so clients need no S3 credentials. With --auth it asks for a name and a password: "admin" with
the password that `env` prints, or a user that the admin adds, who may only read by default. Without --auth every
process of this machine may do everything. Options that a start leaves out keep the values of the start before
(options.json in the state folder).

There is one worker: each takes 250 MiB, and SQLite has one writer.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import secrets
import signal
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cluster import object_store, ports
from cluster.buckets import require_bucket
from cluster.launch import answers, await_listening, launch, listens
from cluster.mlflow_configuration import (
    ADMIN,
    SECRETS_FILE,
    admin_password,
    command,
    environment,
    sqlite_file,
    without_password,
)
from cluster.object_store import ObjectStore
from cluster.processes import LABEL_VARIABLE, ServerProcesses, summary
from cluster.shell import exports
from cluster.state_folder import SERVERS_FOLDER, locked, write_private
from corrector.errors import UserError

STATE = SERVERS_FOLDER / "mlflow"
PORT = 5000
ARTIFACTS = "s3://mlflow"
START_LIMIT_S = 180.0
# Seconds for current requests when the server is stopped.
GRACE_S = 10.0
# Variables with which MLflow's clients use another server than MLFLOW_TRACKING_URI, or log in there.
CONFLICTING_VARIABLES = (
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
_OUTDATED = "Detected out-of-date database schema"


@dataclass(frozen=True)
class MlflowServer:
    """A running MLflow server.

    `label` identifies its processes. `database` is a URL without the password. `artifacts` is a URL or folder;
    `s3_endpoint` is the object store for them, None where the AWS variables or a folder are used. `password` is
    the admin's, None where the server asks for none.
    """

    label: str
    port: int
    database: str
    artifacts: str
    s3_endpoint: str | None
    password: str | None = field(repr=False)

    @property
    def tracking_uri(self) -> str:
        """The tracking URI for MLflow's clients, and the URL for a browser."""
        return f"http://{ports.LOOPBACK}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which MLflow's clients use the server."""
        if self.password is None:
            return {"MLFLOW_TRACKING_URI": self.tracking_uri}
        return {
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "MLFLOW_TRACKING_USERNAME": ADMIN,
            "MLFLOW_TRACKING_PASSWORD": self.password,
        }

    @property
    def processes(self) -> ServerProcesses:
        return ServerProcesses(self.label)


@dataclass(frozen=True)
class MlflowOptions:
    """Options of a start. None keeps the value of the last start on the same state folder.

    Attributes:
        port: Default of the first start: PORT.
        store: The object store for artifacts, in the bucket ARTIFACTS.
        artifacts: A folder, or an S3 URL that is reached with the AWS variables; `store` is then ignored.
        database: SQLAlchemy URL; default of the first start: a SQLite file in the state folder.
        auth: Whether the server asks for a password; default of the first start: no.
    """

    port: int | None = None
    store: ObjectStore | None = None
    artifacts: str | None = None
    database: str | None = None
    auth: bool | None = None
    start_limit_s: float = START_LIMIT_S


def start(options: MlflowOptions, *, state: Path = STATE) -> MlflowServer:
    """Return the MLflow server of the state folder; start it if it does not run, and wait until it answers.

    Raises:
        UserError: The port is taken, the server already runs with other options, there is no such bucket, a package
            is missing, the database was written by another version of MLflow, or the server is not ready in time; in
            the last case it is stopped, and the message holds the end of its log.
    """
    state = state.resolve()
    with locked(state):
        if (running := _current(state)) is not None:
            require_options(running, options)
            return running
        options = _with_last_options(options, state)
        wanted = _server(options, state)
        if wanted.password is not None:
            _require_auth_packages()
        ports.choose("MLflow's port", wanted.port, taken=set())
        require_bucket(wanted.artifacts, options.store)
        _write(wanted, state)
        try:
            _launch(wanted, options, state)
        except BaseException:
            _clear(wanted, state)
            raise
        _remember(options, state)
        return wanted


def current(state: Path = STATE) -> MlflowServer | None:
    """The running MLflow server of the state folder, or None; removes what a server that died left behind."""
    if not (state / "server.json").exists():
        return None
    with locked(state):
        return _current(state)


def stop(server: MlflowServer, *, state: Path = STATE) -> int:
    """End the server and return the number of its processes. Database, artifacts and passwords stay."""
    with locked(state):
        return _clear(server, state)


def require_options(running: MlflowServer, options: MlflowOptions) -> None:
    """Check that the running server has these options; those that are None may have any value.

    Raises:
        UserError: An option differs; the message names the first.
    """
    endpoint = options.store and options.store.endpoint
    database = options.database and without_password(options.database)
    differing = {
        "port": options.port not in (None, running.port),
        "artifacts destination": options.artifacts and _absolute(options.artifacts) != running.artifacts,
        "object store": running.s3_endpoint and endpoint not in (None, running.s3_endpoint),
        "database": database not in (None, running.database),
        "setting of auth": options.auth not in (None, running.password is not None),
    }
    for name, differs in differing.items():
        if differs:
            raise UserError(
                f"MLflow is running already, at {running.tracking_uri}, with another {name}; stop it first with "
                "`python -m cluster.mlflow_server stop`, or leave the option out"
            )


def _with_last_options(options: MlflowOptions, state: Path) -> MlflowOptions:
    """`options` with the values of the last start for those that are None."""
    try:
        last = json.loads((state / "options.json").read_text())
    except FileNotFoundError:
        last = {"port": None, "artifacts": None, "database": None, "auth": False}
    artifacts = _absolute(options.artifacts) if options.artifacts else last["artifacts"]
    return replace(
        options,
        port=last["port"] if options.port is None else options.port,
        store=None if artifacts else options.store,
        artifacts=artifacts,
        database=options.database or last["database"],
        auth=last["auth"] if options.auth is None else options.auth,
    )


def _remember(completed: MlflowOptions, state: Path) -> None:
    kept = {name: getattr(completed, name) for name in ("port", "artifacts", "database", "auth")}
    write_private(state / "options.json", json.dumps(kept))


def _server(completed: MlflowOptions, state: Path) -> MlflowServer:
    if completed.store is None and completed.artifacts is None:
        raise UserError(
            "no object store is running to keep the artifacts: start it with `python -m cluster.object_store start`, "
            "start everything with `python -m cluster.services up`, or say where they go with --artifacts-destination"
        )
    return MlflowServer(
        label=secrets.token_hex(8),
        port=PORT if completed.port is None else completed.port,
        database=without_password(completed.database or sqlite_file(state)),
        artifacts=completed.artifacts or ARTIFACTS,
        s3_endpoint=None if completed.store is None else completed.store.endpoint,
        password=admin_password(state) if completed.auth else None,
    )


def _absolute(artifacts: str) -> str:
    return artifacts if "://" in artifacts else str(Path(artifacts).resolve())


def _current(state: Path) -> MlflowServer | None:
    try:
        written = json.loads((state / "server.json").read_text())
    except FileNotFoundError:
        return None
    password = admin_password(state) if written.pop("auth") else None
    server = MlflowServer(label=written.pop("mark"), **written, password=password)
    if any(listens(process.pid, server.port) for process in server.processes.find()):
        return server
    _clear(server, state)
    return None


def _write(server: MlflowServer, state: Path) -> None:
    written = asdict(replace(server, password=None))
    del written["password"]
    written |= {"mark": written.pop("label"), "auth": server.password is not None}
    write_private(state / "server.json", json.dumps(written))


def _clear(server: MlflowServer, state: Path) -> int:
    ended = server.processes.end(grace_s=GRACE_S)
    (state / "server.json").unlink(missing_ok=True)
    return ended


def _launch(server: MlflowServer, options: MlflowOptions, state: Path) -> None:
    deadline = time.monotonic() + options.start_limit_s
    log = state / "server.log"
    variables = environment(
        state, options.database or sqlite_file(state), options.store, auth=server.password is not None
    )
    launcher = launch(
        command(server.port, server.artifacts, auth=server.password is not None),
        folder=state,
        log=log,
        environment=variables | {LABEL_VARIABLE: server.label},
    )
    try:
        await_listening(
            "the MLflow server",
            launcher,
            server.port,
            log=log,
            limit_s=options.start_limit_s,
            deadline=deadline,
        )
    except UserError:
        if _OUTDATED in log.read_text(errors="replace"):
            raise UserError(
                f"{server.database}: written by another version of MLflow than the one installed; copy the database, "
                f"then bring it up to date with `mlflow db upgrade '{server.database}'`, or install that version"
            ) from None
        raise
    if not answers(f"{server.tracking_uri}/health", deadline):
        raise UserError(
            f"the MLflow server listens at {server.tracking_uri} but does not answer; its log is {log}"
        )
    # The launcher would only wait for the worker, and takes as much memory as the worker.
    launcher.kill()
    launcher.wait()


def _require_auth_packages() -> None:
    if importlib.util.find_spec("flask_wtf") is None:
        raise UserError("--auth: MLflow's basic auth needs Flask-WTF: `pip install Flask-WTF`")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status (2: the user can put it right, 3: no MLflow server is running)."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "start":
            print(describe(_start(options), options.state))
            return 0
        running = current(options.state)
        if running is None:
            print("no MLflow server is running", file=sys.stderr)
            return 0 if options.command == "stop" else 3
        if options.command == "stop":
            stop(running, state=options.state)
            print(f"stopped the MLflow server at {running.tracking_uri}, data kept in {options.state}")
        elif options.command == "status":
            print(describe(running, options.state))
        else:
            print("\n".join(exports(running.environment, unset=CONFLICTING_VARIABLES)))
        return 0
    except UserError as error:
        print(f"MLflow server: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def describe(server: MlflowServer, state: Path) -> str:
    """A text for people: the server's address, processes and memory, database and artifacts."""
    asks = f'; asks for a password: that of "{ADMIN}" is in {state / SECRETS_FILE}' if server.password else ""
    return (
        f"MLflow at {server.tracking_uri}: {summary([server.processes])}, "
        f"database {server.database}, artifacts in {server.artifacts}{asks}"
    )


def add_options(parser: argparse.ArgumentParser, *, port: str) -> None:
    """Add the options of a start except those for S3 to `parser`; `port` is the name of the option for the port."""
    parser.add_argument(
        port, dest="mlflow_port", type=int, metavar="PORT", help=f"port of MLflow (at first {PORT})"
    )
    parser.add_argument(
        "--backend-store-uri",
        default=os.environ.get("MLFLOW_BACKEND_STORE_URI"),
        metavar="URL",
        help="MLflow's database, as postgresql://...; the variable MLFLOW_BACKEND_STORE_URI keeps its password off "
        "the command line (at first a SQLite file in the state folder)",
    )
    parser.add_argument(
        "--auth",
        action=argparse.BooleanOptionalAction,
        help="let MLflow ask for name and password (at first it does not)",
    )


def options_of(parsed: argparse.Namespace) -> MlflowOptions:
    """The values of the options of `add_options`."""
    return MlflowOptions(port=parsed.mlflow_port, database=parsed.backend_store_uri, auth=parsed.auth)


def _start(parsed: argparse.Namespace) -> MlflowServer:
    artifacts = parsed.artifacts_destination
    store = object_store.current(parsed.objects) if artifacts is None else None
    return start(replace(options_of(parsed), store=store, artifacts=artifacts), state=parsed.state)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cluster.mlflow_server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument(
        "--state",
        type=Path,
        default=STATE,
        help="folder of database, passwords and log (default: %(default)s)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    start_command = commands.add_parser("start", parents=[state], help="start it; harmless where it runs")
    add_options(start_command, port="--port")
    start_command.add_argument(
        "--objects",
        type=Path,
        default=object_store.STATE,
        help="state folder of the object store that keeps the artifacts (default: %(default)s)",
    )
    start_command.add_argument(
        "--artifacts-destination",
        help=f"another place for the artifacts: s3://BUCKET/PREFIX, found by the AWS variables, or a folder "
        f"(at first {ARTIFACTS} on the object store)",
    )
    commands.add_parser("stop", parents=[state], help="stop it; data and passwords stay")
    commands.add_parser("status", parents=[state], help="show whether it runs, and where")
    commands.add_parser("env", parents=[state], help="print the shell's export lines for MLflow's clients")
    return parser


if __name__ == "__main__":
    sys.exit(main())
