"""A Ray instance for the duration of one program: the program's `ray.init()` starts it, and it ends with the program.

When the program ends for any reason, the kernel sends SIGKILL to Ray's servers, and workers end with their raylet. As a
head (`cluster.head`), the instance listens on loopback only and asks for a token. It has no dashboard.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import psutil

from cluster.head import HeadOptions, program_environment, scratch_folder
from cluster.state_folder import locked

_IDLE_WORKER_MS = 3_600_000
"""Milliseconds for which a worker process waits for its next task."""


def environment(options: HeadOptions, state: Path) -> dict[str, str]:
    """The environment of a program that replaces this process and starts Ray with the resources of `options`.

    Ray's sockets and logs are in a temporary folder. `state/instances/PID` links to it; the first call after the end of the
    program removes both.
    """
    resources = {
        "CPU": options.num_cpus,
        "GPU": options.num_gpus,
        "object_store_memory": options.object_store_bytes,
    }
    links = state / "instances"
    with locked(state):
        links.mkdir(exist_ok=True)
        for link in links.iterdir():
            if not psutil.pid_exists(int(link.name)):
                shutil.rmtree(link.resolve(), ignore_errors=True)
                link.unlink()
        own = links / str(os.getpid())
        own.unlink(missing_ok=True)
        scratch = scratch_folder()
        own.symlink_to(scratch)
        return {
            **program_environment(state),
            "RAY_ADDRESS": "local",
            "RAY_TMPDIR": scratch,
            "RAY_RUNTIME_ENV_HOOK": "cluster.ray_hooks.trim_local_instance",
            # Tasks come minutes apart: after Ray's default of a second, each would import PyTorch in a new process.
            "RAY_idle_worker_killing_time_threshold_ms": str(_IDLE_WORKER_MS),
            "RAY_OVERRIDE_RESOURCES": json.dumps(
                {name: amount for name, amount in resources.items() if amount is not None}
            ),
        }
