"""The configurations of Ray's cluster launcher are valid, and mistakes in them are found by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.launcher import LAUNCHER_FILES, Config, launched, load, problems

AWS = LAUNCHER_FILES[0]


@pytest.mark.parametrize("file", LAUNCHER_FILES, ids=lambda file: file.stem)
def test_the_configuration_is_valid(file: Path) -> None:
    assert problems(load(file)) == []


def test_gpus_come_on_spot_and_on_demand_where_spot_has_no_room() -> None:
    assert launched(load(AWS), gpus=0) == {}
    assert launched(load(AWS), gpus=3) == {"gpu-spot": 3}
    assert launched(load(AWS), gpus=3, unavailable=["gpu-spot"]) == {"gpu-on-demand": 3}


def _put(value: object, *path: str) -> Callable[[Config], None]:
    """A mutation: the field at `path` becomes `value`."""

    def mutate(config: Config) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return mutate


def _drop(*path: str) -> Callable[[Config], None]:
    def mutate(config: Config) -> None:
        for key in path[:-1]:
            config = config[key]
        del config[path[-1]]

    return mutate


def _type(name: str, *path: str) -> tuple[str, ...]:
    return ("available_node_types", name, *path)


MISTAKES = {
    "a misspelt key": (_put(5, "idle_timeout_minute"), "'idle_timeout_minute' was unexpected"),
    "a misspelt key of a node type": (
        _put(5, *_type("gpu-spot", "idle_timeout")),
        "'idle_timeout' was unexpected",
    ),
    "a misspelt key of EC2": (
        _put({}, *_type("gpu-spot", "node_config", "InstanceMarketOption")),
        'Unknown parameter in input: "InstanceMarketOption"',
    ),
    "a head that is no node type": (_put("heads", "head_node_type"), "`head_node_type` must be one of"),
    "no fallback": (_drop(*_type("gpu-on-demand")), "gpu-spot: spot without an on-demand fallback"),
    "a fallback that comes first": (_put(2, *_type("gpu-on-demand", "priority")), "gpu-spot: spot without"),
    "a fallback of another machine": (
        _put("p5.48xlarge", *_type("gpu-on-demand", "node_config", "InstanceType")),
        "gpu-spot: spot without",
    ),
    "GPUs that wait": (_put(1, *_type("gpu-spot", "min_workers")), "gpu-spot.min_workers"),
    "stopped nodes": (_drop("provider", "cache_stopped_nodes"), "provider.cache_stopped_nodes"),
    "Ray's open SSH": (
        _drop(*_type("head", "node_config", "SecurityGroupIds")),
        "head.node_config.SecurityGroupIds",
    ),
    "Ray's wide role": (
        _drop(*_type("head", "node_config", "IamInstanceProfile")),
        "IamInstanceProfile: missing",
    ),
    "a public dashboard": (
        _put(["ray start --head --dashboard-host=0.0.0.0"], "head_start_ray_commands"),
        "the dashboard is public, at 0.0.0.0",
    ),
    "an older image": (
        _put("r.example/prompt-corrector:0.0.9", "docker", "worker_image"),
        "docker.worker_image",
    ),
    "the latest image": (
        _put("r.example/prompt-corrector:latest", "docker", "head_image"),
        "docker.head_image",
    ),
    "no image": (_drop("docker", "head_image"), "Must provide a container & image name"),
    "no cache on the disk": (_put([], "docker", "run_options"), "nothing is mounted at /cache"),
    "a privileged container": (
        _put(["--privileged"], "docker", "run_options"),
        "docker.run_options: --privileged",
    ),
    "Ray installed anew": (_drop("setup_commands"), "setup_commands: not empty"),
    "no token": (_drop("file_mounts", "/home/ray/.ray/auth_token"), "no /home/ray/.ray/auth_token"),
    "a secret in the file": (
        _put(["--env HF_TOKEN=hf_x"], "docker", "run_options"),
        "HF_TOKEN: belongs into",
    ),
    "the environment repeated": (
        _put(["RAY_AUTH_MODE=disabled ray start --head"], "head_start_ray_commands"),
        "RAY_AUTH_MODE: belongs into node.env",
    ),
}


@pytest.mark.parametrize(("mutate", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_found_by_name(mutate: Callable[[Config], None], said: str) -> None:
    config = load(AWS)
    mutate(config)
    assert said in "\n".join(problems(config))
