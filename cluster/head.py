"""A Ray head on this machine: on the loopback interface only, behind a token, stopped by its own pids.

What Ray does by itself, and what is done about it (Ray 2.60):

- It replaces 127.0.0.1 by the routable address and binds its servers to every interface. With
  RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, which is how it behaves on a Mac, the node's address stays 127.0.0.1
  and every server (GCS, raylet, dashboard, agents, workers, metrics) listens on the loopback interface alone.
  The variable must also reach whatever connects to the head: jobs inherit it.
- `ray start` switches token authentication on only where it finds a token: here there always is one, in a
  file that only its owner reads, in the state folder instead of the home folder.
- `ray stop` matches the processes of every Ray on the machine. It is never used.
- Usage statistics are sent unless they are switched off. They are; `ray_hooks` silences the report of that.

OMP_NUM_THREADS is left as the caller has it. Where it is unset, Ray gives a worker as many threads as it has
CPUs, so lanes share the cores without crowding them.
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
    """How to start a head. Ports left as None are chosen, CPUs and GPUs left as None are the machine's."""

    port: int | None = None
    dashboard_port: int | None = None
    num_cpus: int | None = None
    num_gpus: int | None = None
    object_store_bytes: int = OBJECT_STORE_BYTES
    start_limit_s: float = START_LIMIT_S


@dataclass(frozen=True)
class Head:
    """A head that was started: what its state file holds.

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
        """What `ray.init(address=...)` takes."""
        return f"{ports.LOOPBACK}:{self.port}"

    @property
    def dashboard_url(self) -> str:
        """Where jobs are submitted, and what a browser opens."""
        return f"http://{ports.LOOPBACK}:{self.dashboard_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a Ray program or command needs in its environment to reach this head."""
        return {
            "RAY_API_SERVER_ADDRESS": self.dashboard_url,
            "RAY_ADDRESS": self.gcs_address,
            **_closed(self.token_file),
        }

    @property
    def processes(self) -> ServerProcesses:
        """Ray's own, drivers, workers and what they started."""
        return ServerProcesses(self.label, self.session)

    def driver_environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The environment of a driver of this head that is started on this machine; its workers get `variables`, too."""
        job = {"runtime_env": {"env_vars": dict(variables)}, "metadata": {}}
        return {
            **program_environment(Path(self.token_file).parent),
            **variables,
            **self.environment,
            "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job),
            LABEL_VARIABLE: self.label,
        }


def start(options: HeadOptions, *, state: Path = STATE) -> Head:
    """Start a head and return once it takes jobs.

    What is left of a head that died is cleared away first. Raises UserError where a head of this state folder runs
    already, where a port is taken, and where it is not ready in time: then nothing of it is left, and the message holds
    the end of its log.
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
    """The head that the state folder tells of, or None; what is left of one that died is cleared away."""
    with locked(state):
        return _current(state)


def stop(head: Head, *, state: Path = STATE) -> int:
    """End the head and all that runs for it; return how many processes. Its logs go to `state/logs`."""
    with locked(state):
        return _clear(head, state)


def describe(head: Head) -> str:
    """Where the head is, what it takes, and how to reach it, for people."""
    return "\n".join(
        [
            f"Ray head at {head.gcs_address}: {summary([head.processes])}",
            f"dashboard and jobs: {head.dashboard_url} (token in {head.token_file})",
            "to reach it with `ray` commands and `ray.init()`:",
            *(f"  {line}" for line in exports(head.environment, unset=())),
        ]
    )


def program_environment(state: Path) -> dict[str, str]:
    """What a program needs in its environment to start Ray, or to use it, as this project does.

    Ray is closed to others, and `python` and this project are those of the caller.
    """
    before = os.environ.get("PYTHONPATH")
    return {
        **_closed(str(_token(state))),
        # What Ray Serve's HTTP proxies do first: clients must not lift its limits.
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.edge.middlewares",
        # Ray would run workers at niceness 15: whatever else the machine does would go before the job.
        "RAY_worker_niceness": os.environ.get("RAY_worker_niceness", "0"),  # noqa: SIM112 - Ray's spelling
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join([str(PROJECT), before] if before else [str(PROJECT)]),
    }


def scratch_folder() -> str:
    """A new folder for Ray's sockets and logs, for its owner only.

    Sockets bound its path to 107 characters, so it lies in /tmp where the name of the system's temporary folder is long.
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
    """Return once the head takes jobs; raise UserError if that takes longer than `limit_s` seconds."""
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
        # Time for a job to write down where it stands before it is killed; Ray's own 3 s are short for that.
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
    """The file with the token, made once, that only its owner can read."""
    path = state / "auth_token"
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    return path
