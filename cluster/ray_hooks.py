"""Hooks that change what Ray 2.60 starts, where Ray has no option; environment variables name them, and Ray calls them.

- The Ray Client proxy takes 90 MB and port 10001 for a protocol that jobs do not use; `ray start` refuses port 0 for it.
- The dashboard's usage module sends requests even when usage statistics are off: to the metadata servers of three clouds,
  which blocks the dashboard for up to three seconds, and once to usage-stats.ray.io, to report that they are off.
  `ray start` always starts it, and `ray.init(include_dashboard=False)` starts only this module.
- `ray.init()` starts the autoscaler's monitor, which one machine does not need.
- A terminal that is closed sends SIGHUP to Ray's servers and workers, too, while the driver still needs them to save its
  state. `ray.init()` starts them with only SIGINT blocked.
"""

import signal
from typing import Any

# The dashboard's modules except UsageStatsHead and those of Ray Data and of the event log.
DASHBOARD_MODULES = (
    "JobHead",
    "MetricsHead",
    "NodeHead",
    "ReportHead",
    "ServeHead",
    "StateHead",
    "TrainHead",
)


def trim_head(parameters: Any, head: bool) -> None:
    """Start a head without the Ray Client proxy, and its dashboard with DASHBOARD_MODULES only (RAY_START_HOOK)."""
    if not head:
        return
    from ray._private import ray_constants, services

    parameters.ray_client_server_port = None
    start_process = services.start_ray_process

    def start_trimmed(command: list[str], process_type: str, *arguments: Any, **options: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_DASHBOARD:
            command = [*command, f"--modules-to-load={','.join(DASHBOARD_MODULES)}"]
        return start_process(command, process_type, *arguments, **options)

    services.start_ray_process = start_trimmed


def trim_local_instance(runtime_env: Any) -> Any:
    """Make `ray.init()` start no dashboard and no monitor, and the rest with SIGHUP blocked (RAY_RUNTIME_ENV_HOOK).

    Ray Train's placement group cleaner needs the dashboard, so here the CPUs of a lane whose controller died stay taken.
    Returns `runtime_env` unchanged.
    """
    from ray._private import node

    Node: Any = node.Node
    start_node = Node.__init__

    def start_without_hangup(self: Any, *arguments: Any, **options: Any) -> None:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            start_node(self, *arguments, **options)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    Node.__init__ = start_without_hangup
    Node.start_api_server = lambda self, **options: None
    Node.start_monitor = lambda self: None
    return runtime_env
