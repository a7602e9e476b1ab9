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
import fcntl
import importlib.util
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cluster import ports, processes
from cluster.head import PROJECT
from cluster.object_store_configuration import (
    ACCOUNT,
    DEVICE,
    REGION,
    SERVERS,
    write_configuration,
    write_private,
)
from corrector.errors import UserError

STATE = PROJECT / "registry" / "objects"
START_LIMIT_S = 60.0

_MODULES = {
    "account": "swift.account.server",
    "container": "swift.container.server",
    "object": "swift.obj.server",
    "proxy": "swift.proxy.server",
}
# Not by its own command: as a daemon it would want a user called swift, and /etc/swift.
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
    """A running object store. `mark` is carried by its processes, `port` is the proxy's."""

    mark: str
    port: int
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def endpoint(self) -> str:
        """The URL that S3 programs take as their endpoint."""
        return f"http://{ports.LOOPBACK}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What boto3, MLflow and pyarrow need in their environment to use it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
        }

    def signs(self, server: str) -> processes.Signs:
        """What tells the process of one of its SERVERS."""
        return processes.Signs(f"{self.mark}-{server}", session=None)


def start(
    *, state: Path = STATE, port: int | None = None, start_limit_s: float = START_LIMIT_S
) -> ObjectStore:
    """The object store of the state folder: the one that runs, or one started now; returns once it answers.

    Args:
        state: Holds data, keys, configuration and logs; made if missing.
        port: Where to listen; None: where it listens already, else any port that is free.

    Raises:
        UserError: Swift is not installed, the port is taken, the store runs at another port already, the file system
            will not do, or a server is not ready in time: then none is left running, and the message holds the end
            of its log.
    """
    _require_swift()
    state = state.resolve()
    with _locked(state):
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
        write_private(state / "store.json", json.dumps({"mark": store.mark, "port": store.port}))
        try:
            _await({name: _launch(store, name, state) for name in SERVERS}, chosen, state, start_limit_s)
            _enter_pending(state)
        except BaseException:
            _clear(store, state)
            raise
        return store


def current(state: Path = STATE) -> ObjectStore | None:
    """The object store that runs on the state folder, or None; what is left of one that died is cleared away."""
    if not (state / "store.json").exists():
        return None
    with _locked(state):
        return _current(state)


def stop(store: ObjectStore, *, state: Path = STATE) -> int:
    """End the object store; return how many processes there were. Data and keys stay."""
    with _locked(state):
        return _clear(store, state)


def _current(state: Path) -> ObjectStore | None:
    try:
        written = json.loads((state / "store.json").read_text())
    except FileNotFoundError:
        return None
    store = ObjectStore(written["mark"], written["port"], *_keys(state))
    if all(processes.find(store.signs(server)) for server in SERVERS):
        return store
    _clear(store, state)
    return None


def _clear(store: ObjectStore, state: Path) -> int:
    # From the proxy inwards: a server never loses the one behind it in the middle of a request.
    ended = sum(processes.end(store.signs(server)) for server in reversed(SERVERS))
    (state / "store.json").unlink(missing_ok=True)
    return ended


def _launch(store: ObjectStore, server: str, state: Path) -> subprocess.Popen[bytes]:
    logs = state / "logs"
    logs.mkdir(exist_ok=True)
    with (logs / f"{server}.log").open("wb") as output:
        return subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                _MODULES[server],
                str(state / "conf" / f"{server}.conf"),
                "--verbose",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=state,
            env={**os.environ, processes.MARK: store.signs(server).mark},
            start_new_session=True,  # a Ctrl-C in the terminal is not for the store
        )


def _await(
    servers: Mapping[str, subprocess.Popen[bytes]],
    listening: Mapping[str, int],
    state: Path,
    limit_s: float,
) -> None:
    """Return once every server listens at its port; raise UserError if that takes longer than `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    for name, server in servers.items():
        while not _listens(server.pid, listening[name]):
            if server.poll() is not None:
                reason = f"did not start: exit status {server.returncode}"
            elif time.monotonic() > deadline:
                reason = f"was not ready within {limit_s:g} s"
            else:
                time.sleep(0.02)
                continue
            log = state / "logs" / f"{name}.log"
            raise UserError(
                f"the object store's {name} server {reason}; the end of its log ({log}):\n{_tail(log)}"
            )


def _listens(pid: int, port: int) -> bool:
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for connection in connections
    )


def _enter_pending(state: Path) -> None:
    """Enter into their buckets' listings the objects of which a server, when it was killed, still owed the entry."""
    if not any((state / "data" / DEVICE).glob("async_pending*/*/*")):
        return
    log = state / "logs" / "updater.log"
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
            f"the object store cannot complete its listings; the end of its log ({log}):\n{_tail(log)}"
        )


def _keys(state: Path) -> tuple[str, str]:
    """Access key and secret key of the state folder, made once, in a file that only its owner can read."""
    path = state / "keys.json"
    if not path.exists():
        keys = {"access_key": f"{ACCOUNT}:{secrets.token_hex(8)}", "secret_key": secrets.token_hex(20)}
        write_private(path, json.dumps(keys))
    keys = json.loads(path.read_text())
    return keys["access_key"], keys["secret_key"]


def _tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _require_swift() -> None:
    if not all(map(importlib.util.find_spec, ("swift", "pyeclib"))):
        raise UserError(
            "the local object store needs OpenStack Swift: `pip install swift pyeclib`; "
            "or use another S3 and set AWS_ENDPOINT_URL to it"
        )


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    """One command at a time starts or stops the object store of a state folder."""
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status (2: the user can put it right, 3: no object store is running)."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "start":
            _describe(start(state=options.state, port=options.port), options.state)
            return 0
        running = current(options.state)
        if running is None:
            print("no object store is running", file=sys.stderr)
            return 0 if options.command == "stop" else 3
        if options.command == "stop":
            ended = stop(running, state=options.state)
            print(f"stopped the object store: {ended} processes ended, data kept in {options.state / 'data'}")
        elif options.command == "status":
            _describe(running, options.state)
        else:
            print("unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL_S3 AWS_REGION")
            for name, value in running.environment.items():
                print(f"export {name}={shlex.quote(value)}")
        return 0
    except UserError as error:
        print(f"object store: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _describe(store: ObjectStore, state: Path) -> None:
    running = [process for server in SERVERS for process in processes.find(store.signs(server))]
    print(
        f"object store at {store.endpoint}: {len(running)} processes, {processes.memory(running) >> 20} MiB, "
        f"data in {state / 'data'}"
    )
    print('to use it: eval "$(python -m cluster.object_store env)"')


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
