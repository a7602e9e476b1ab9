"""A Ray head on this machine: on the loopback interface only, behind a token, stopped by its own pids.

Defaults of Ray 2.60 that are changed here:

- Ray replaces 127.0.0.1 by the routable address and binds its servers to every interface. With
  RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, as on a Mac, the node's address stays 127.0.0.1 and its servers (GCS,
  raylet, dashboard, agents, workers, metrics) listen on the loopback interface only. Programs that connect to
  the head need the variable, too; jobs inherit it.
- `ray start` enables token authentication only if it finds a token. The state folder always has one, in a file
  that only its owner can read.
- `ray stop` ends the processes of every Ray on the machine. It is not used here.
- Ray sends usage statistics. They are switched off; `ray_hooks` also prevents the request that reports this.

OMP_NUM_THREADS keeps the caller's value. If it is unset, Ray gives a worker as many threads as it has CPUs, so
that lanes do not use more threads than cores.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cluster import ports
from cluster.launch import answers, launch
from cluster.processes import LABEL_VARIABLE, ServerProcesses, summary
from cluster.shell import exports
from cluster.state_folder import PROJECT, locked, tail, write_private
from corrector.errors import UserError

STATE = PROJECT / ".local"
OBJECT_STORE_BYTES = 512 * 1024**2
START_LIMIT_S = 180.0
JOB_STOP_WAIT_S = 20


@dataclass(frozen=True)
class HeadOptions:
    """Options of a head. None means any free port, or the machine's CPUs and GPUs."""

    port: int | None = None
    dashboard_port: int | None = None
    num_cpus: int | None = None
    num_gpus: int | None = None
    object_store_bytes: int = OBJECT_STORE_BYTES
    start_limit_s: float = START_LIMIT_S


@dataclass(frozen=True)
class Head:
    """A started head, as its state file describes it.

    `label` and `session` identify its processes (`cluster.processes`); `session` is None until they are launched.
    `scratch` is Ray's folder of sockets, logs and spilled objects.
    """

    label: str
    port: int
    dashboard_port: int
    token_file: str
    scratch: str
    session: int | None = None

    @property
    def gcs_address(self) -> str:
        """The address for `ray.init(address=...)`."""
        return f"{ports.LOOPBACK}:{self.port}"

    @property
    def dashboard_url(self) -> str:
        """The URL of the dashboard, which also accepts jobs."""
        return f"http://{ports.LOOPBACK}:{self.dashboard_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which a Ray program or command reaches this head."""
        return {
            "RAY_API_SERVER_ADDRESS": self.dashboard_url,
            "RAY_ADDRESS": self.gcs_address,
            **_closed(self.token_file),
        }

    @property
    def processes(self) -> ServerProcesses:
        """The processes of Ray, of drivers and workers, and those that they started."""
        return ServerProcesses(self.label, self.session)

    def driver_environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The environment of a driver of this head on this machine; `variables` are also set for its workers."""
        job = {"runtime_env": {"env_vars": dict(variables)}, "metadata": {}}
        return {
            **program_environment(Path(self.token_file).parent),
            **variables,
            **self.environment,
            "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job),
            LABEL_VARIABLE: self.label,
        }


def start(options: HeadOptions, *, state: Path = STATE) -> Head:
    """Remove what a head that died left behind, start a head, and return when it accepts jobs.

    Raises:
        UserError: A head of this state folder already runs, a port is taken, or the head is not ready in time; in the
            last case its processes are ended, and the message holds the end of its log.
    """
    with locked(state):
        if (running := _current(state)) is not None:
            raise UserError(
                f"a local head is running already, at {running.dashboard_url} (state in {state}); "
                "stop it with `python -m cluster.local stop`"
            )
        taken: set[int] = set()
        head = Head(
            label=secrets.token_hex(8),
            port=ports.choose("port", options.port, taken=taken),
            dashboard_port=ports.choose("dashboard port", options.dashboard_port, taken=taken),
            token_file=str(_token(state)),
            scratch=scratch_folder(),
        )
        _write(head, state)
        try:
            launcher = _launch(head, options, taken, state)
            head = replace(head, session=launcher.pid)
            _write(head, state)
            _await(head, launcher, options.start_limit_s, log=state / "head.log")
        except BaseException:
            _clear(head, state)
            raise
        return head


def current(state: Path = STATE) -> Head | None:
    """The running head of the state folder, or None; removes what a head that died left behind."""
    with locked(state):
        return _current(state)


def stop(head: Head, *, state: Path = STATE) -> int:
    """End all processes of the head and return their number. Its logs are moved to `state/logs`."""
    with locked(state):
        return _clear(head, state)


def describe(head: Head) -> str:
    """A text for people: the head's address, processes and memory, and how to connect to it."""
    return "\n".join(
        [
            f"Ray head at {head.gcs_address}: {summary([head.processes])}",
            f"dashboard and jobs: {head.dashboard_url} (token in {head.token_file})",
            "to reach it with `ray` commands and `ray.init()`:",
            *(f"  {line}" for line in exports(head.environment, unset=())),
        ]
    )


def program_environment(state: Path) -> dict[str, str]:
    """The environment variables with which a program starts or uses Ray as this project does.

    Ray accepts only clients with the token, and workers use the caller's `python` and this project.
    """
    before = os.environ.get("PYTHONPATH")
    return {
        **_closed(str(_token(state))),
        # Middleware of Ray Serve's HTTP proxies: it removes headers with which clients could change limits.
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.edge.middlewares",
        # Ray's default niceness for workers is 15: other programs of the machine would have priority over a job.
        "RAY_worker_niceness": os.environ.get("RAY_worker_niceness", "0"),  # noqa: SIM112 - Ray's spelling
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join([str(PROJECT), before] if before else [str(PROJECT)]),
    }


def scratch_folder() -> str:
    """A new folder for Ray's sockets and logs that only its owner can read.

    The path of a socket has at most 107 characters: if the path of the system's temporary folder is long, /tmp is used.
    """
    folder = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="ray-", dir=folder if len(folder) <= 25 else "/tmp")  # noqa: S108 - made private


def _closed(token_file: str) -> dict[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": token_file,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _current(state: Path) -> Head | None:
    try:
        raw = json.loads((state / "head.json").read_text())
        raw.pop("owner", None)  # of earlier versions
        head = Head(label=raw.pop("mark"), **raw)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        (state / "head.json").unlink()
        return None
    if head.processes.find():
        return head
    _clear(head, state)
    return None


def _launch(head: Head, options: HeadOptions, taken: set[int], state: Path) -> subprocess.Popen[bytes]:
    arguments = {
        "port": head.port,
        "dashboard-host": ports.LOOPBACK,
        "dashboard-port": head.dashboard_port,
        "dashboard-agent-listen-port": ports.choose("dashboard agent port", None, taken=taken),
        "object-store-memory": options.object_store_bytes,
        "temp-dir": head.scratch,
        "num-cpus": options.num_cpus,
        "num-gpus": options.num_gpus,
    }
    given = [f"--{name}={value}" for name, value in arguments.items() if value is not None]
    return launch(
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--no-monitor", *given],
        folder=PROJECT,
        log=state / "head.log",
        environment=_environment(head, metrics_port=ports.choose("metrics port", None, taken=taken)),
    )


def _await(head: Head, launcher: subprocess.Popen[bytes], limit_s: float, *, log: Path) -> None:
    """Return when the head accepts jobs; raise UserError if that takes longer than `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    reason = f"was not ready within {limit_s:g} s"
    try:
        status = launcher.wait(limit_s)
        if status != 0:
            reason = f"did not start: exit status {status}"
        elif answers(f"{head.dashboard_url}/api/jobs/", deadline, headers=_authorisation(head)):
            return
    except subprocess.TimeoutExpired:
        launcher.kill()
        launcher.wait()
    raise UserError(f"the local Ray head {reason}; the end of its log ({log}):\n{tail(log)}")


def _environment(head: Head, *, metrics_port: int) -> dict[str, str]:
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")
    }
    return {
        # Time for a job to save its state before it is killed; Ray's default of 3 s is too short.
        "RAY_JOB_STOP_WAIT_TIME_S": str(JOB_STOP_WAIT_S),
        **inherited,
        **program_environment(Path(head.token_file).parent),
        "DASHBOARD_METRIC_PORT": str(metrics_port),
        "RAY_START_HOOK": "cluster.ray_hooks.trim_head",
        LABEL_VARIABLE: head.label,
    }


def _authorisation(head: Head) -> dict[str, str]:
    return {"Authorization": f"Bearer {Path(head.token_file).read_text()}"}


def _clear(head: Head, state: Path) -> int:
    ended = head.processes.end()
    kept = state / "logs"
    logs = Path(head.scratch) / "session_latest" / "logs"
    if logs.is_dir():
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(logs, kept, symlinks=True, ignore_dangling_symlinks=True)
    shutil.rmtree(head.scratch, ignore_errors=True)
    (state / "head.json").unlink(missing_ok=True)
    return ended


def _write(head: Head, state: Path) -> None:
    raw = asdict(head)
    raw["mark"] = raw.pop("label")
    write_private(state / "head.json", json.dumps(raw))


def _token(state: Path) -> Path:
    """The file with the token; created once, and readable only by its owner."""
    path = state / "auth_token"
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    return path
