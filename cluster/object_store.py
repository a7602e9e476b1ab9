"""An S3 server on this machine: OpenStack Swift behind its S3 interface, kept on disk, on loopback only.

    python -m cluster.object_store start | stop | status
    eval "$(python -m cluster.object_store env)"    what S3 programs need to reach it

Signatures are checked as S3 checks them; the keys are made once per state folder and only its owner reads them. Four
servers share the work: the proxy, which speaks S3, and behind it one each for objects, buckets and accounts. Those
three answer any process of this machine without a signature, so this is for a machine whose users trust one another.
It has no versioning, tagging or encryption of its own, and no daemons that replicate or repair: for one disk.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from cluster import ports
from cluster.launch import await_listening, launch
from cluster.object_store_configuration import ACCOUNT, DEVICE, REGION, SERVERS, write_configuration
from cluster.processes import LABEL_VARIABLE, ServerProcesses, summary
from cluster.shell import exports
from cluster.state_folder import SERVERS_FOLDER, locked, secrets_of, tail, write_private
from corrector.errors import UserError

STATE = SERVERS_FOLDER / "objects"
START_LIMIT_S = 60.0
# Variables with which S3 programs use another server than AWS_ENDPOINT_URL.
CONFLICTING_VARIABLES = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "MLFLOW_S3_ENDPOINT_URL",
)

_MODULES = {
    "account": "swift.account.server",
    "container": "swift.container.server",
    "object": "swift.obj.server",
    "proxy": "swift.proxy.server",
}
# Started without Swift's own command, which needs a user called swift, and /etc/swift.
_UPDATER = """
import os, sys
from swift.common import utils
utils.set_swift_dir(os.path.dirname(sys.argv[1]))
from swift.obj.updater import ObjectUpdater
configuration = utils.readconf(sys.argv[1], "object-updater")
ObjectUpdater(configuration, utils.get_logger(configuration, log_to_console=True)).run_once()
"""


@dataclass(frozen=True)
class ObjectStore:
    """A running object store. `label` identifies its processes, `port` is the proxy's."""

    label: str
    port: int
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def endpoint(self) -> str:
        """The endpoint URL for S3 programs."""
        return f"http://{ports.LOOPBACK}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which boto3, MLflow and pyarrow use the store."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
        }

    def processes(self, server: str) -> ServerProcesses:
        return ServerProcesses(f"{self.label}-{server}")


def start(
    *, state: Path = STATE, port: int | None = None, start_limit_s: float = START_LIMIT_S
) -> ObjectStore:
    """Return the object store of the state folder; start it if it does not run, and wait until it answers.

    Args:
        state: Folder of data, keys, configuration and logs; created if missing.
        port: Port to listen at; None: that of the running store, or any free port.

    Raises:
        UserError: Swift is not installed, the port is taken, the store already runs at another port, the file system
            cannot be used, or a server is not ready in time; in the last case all are stopped, and the message holds
            the end of its log.
    """
    _require_swift()
    state = state.resolve()
    with locked(state):
        running = _current(state)
        if running is not None:
            if port not in (None, running.port):
                raise UserError(
                    f"port {port}: the object store of {state} is running already, at {running.endpoint}; "
                    "stop it first, or leave the option out"
                )
            return running
        taken: set[int] = set()
        chosen = {"proxy": ports.choose("port", port, taken=taken)}
        for server in SERVERS[:-1]:
            chosen[server] = ports.choose(f"{server} server's port", None, taken=taken)
        access_key, secret_key = _keys(state)
        store = ObjectStore(secrets.token_hex(8), chosen["proxy"], access_key, secret_key)
        (state / "conf").mkdir(exist_ok=True)
        write_configuration(state / "conf", state / "data", chosen, access_key, secret_key)
        write_private(state / "store.json", json.dumps({"mark": store.label, "port": store.port}))
        try:
            deadline = time.monotonic() + start_limit_s
            launched = {name: _launch(store, name, state) for name in SERVERS}
            for name, server_process in launched.items():
                await_listening(
                    f"the object store's {name} server",
                    server_process,
                    chosen[name],
                    log=_log(state, name),
                    limit_s=start_limit_s,
                    deadline=deadline,
                )
            _complete_listings(state)
        except BaseException:
            _clear(store, state)
            raise
        return store


def current(state: Path = STATE) -> ObjectStore | None:
    """The running object store of the state folder, or None; removes what a store that died left behind."""
    if not (state / "store.json").exists():
        return None
    with locked(state):
        return _current(state)


def stop(store: ObjectStore, *, state: Path = STATE) -> int:
    """End the object store and return the number of its processes. Data and keys stay."""
    with locked(state):
        return _clear(store, state)


def _current(state: Path) -> ObjectStore | None:
    try:
        written = json.loads((state / "store.json").read_text())
    except FileNotFoundError:
        return None
    store = ObjectStore(written["mark"], written["port"], *_keys(state))
    if all(store.processes(server).find() for server in SERVERS):
        return store
    _clear(store, state)
    return None


def _clear(store: ObjectStore, state: Path) -> int:
    # The proxy first: a server ends before the servers that it sends requests to.
    ended = sum(store.processes(server).end() for server in reversed(SERVERS))
    (state / "store.json").unlink(missing_ok=True)
    return ended


def _launch(store: ObjectStore, server: str, state: Path) -> subprocess.Popen[bytes]:
    configuration = state / "conf" / f"{server}.conf"
    return launch(
        [sys.executable, "-P", "-m", _MODULES[server], str(configuration), "--verbose"],
        folder=state,
        log=_log(state, server),
        environment={**os.environ, LABEL_VARIABLE: store.processes(server).label},
    )


def _log(state: Path, server: str) -> Path:
    return state / "logs" / f"{server}.log"


def _complete_listings(state: Path) -> None:
    """Add objects to the listings of their buckets that a killed server has not added."""
    if not any((state / "data" / DEVICE).glob("async_pending*/*/*")):
        return
    log = _log(state, "updater")
    with log.open("wb") as output:
        ended = subprocess.run(
            [sys.executable, "-P", "-c", _UPDATER, str(state / "conf" / "object.conf")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=state,
            check=False,
        )
    if ended.returncode != 0:
        raise UserError(
            f"the object store cannot complete its listings; the end of its log ({log}):\n{tail(log)}"
        )


def _keys(state: Path) -> tuple[str, str]:
    """Access key and secret key of the state folder; created once, in a file that only its owner can read."""
    keys = secrets_of(
        state,
        "keys.json",
        lambda: {"access_key": f"{ACCOUNT}:{secrets.token_hex(8)}", "secret_key": secrets.token_hex(20)},
    )
    return keys["access_key"], keys["secret_key"]


def _require_swift() -> None:
    if not all(map(importlib.util.find_spec, ("swift", "pyeclib"))):
        raise UserError(
            "the local object store needs OpenStack Swift: `pip install swift pyeclib`; "
            "or use another S3 and set AWS_ENDPOINT_URL to it"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status (2: the user can put it right, 3: no object store is running)."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "start":
            print(describe(start(state=options.state, port=options.port), options.state))
            return 0
        running = current(options.state)
        if running is None:
            print("no object store is running", file=sys.stderr)
            return 0 if options.command == "stop" else 3
        if options.command == "stop":
            ended = stop(running, state=options.state)
            print(f"stopped the object store: {ended} processes ended, data kept in {options.state / 'data'}")
        elif options.command == "status":
            print(describe(running, options.state))
        else:
            print("\n".join(exports(running.environment, unset=CONFLICTING_VARIABLES)))
        return 0
    except UserError as error:
        print(f"object store: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def describe(store: ObjectStore, state: Path) -> str:
    """A text for people: the store's address, processes and memory, and the folder of its data."""
    taken = summary(map(store.processes, SERVERS))
    return f"object store at {store.endpoint}: {taken}, data in {state / 'data'}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cluster.object_store",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument(
        "--state", type=Path, default=STATE, help="folder of data, keys and logs (default: %(default)s)"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    commands.add_parser("start", parents=[state], help="start it; harmless where it runs").add_argument(
        "--port", type=int, help="port to listen at (default: one that is free)"
    )
    commands.add_parser("stop", parents=[state], help="stop it; data and keys stay")
    commands.add_parser("status", parents=[state], help="show whether it runs, and where")
    commands.add_parser("env", parents=[state], help="print the shell's export lines for S3 programs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
