"""Trims what `ray start` launches: named in RAY_START_HOOK, called by Ray with its parameters.

Written against Ray 2.60, which has no options for either:

- The Ray Client proxy takes 90 MB and port 10001 for a protocol that jobs do not use; `ray start` refuses
  port 0 for it.
- The dashboard's usage module, told that usage statistics are off, still asks three clouds' metadata servers
  where it runs, which blocks the dashboard for up to three seconds, and reports to usage-stats.ray.io that it
  does not report. The dashboard can be told which modules to load; `ray start` does not pass that on.
"""

from typing import Any

# All of the dashboard's modules but UsageStatsHead, and but those of Ray Data and of the event log.
DASHBOARD_MODULES = (
    "JobHead",
    "MetricsHead",
    "NodeHead",
    "ReportHead",
    "ServeHead",
    "StateHead",
    "TrainHead",
)


def trim(parameters: Any, head: bool) -> None:
    """Start a head without the Ray Client proxy, and its dashboard with DASHBOARD_MODULES only."""
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
