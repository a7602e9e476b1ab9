"""Mistakes in a configuration of Ray's cluster launcher: by Ray's schema, by EC2's, and by what this project promises."""

from __future__ import annotations

import copy
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from tests.support.paths import PROJECT

LAUNCHER_FILES = (PROJECT / "cluster" / "aws.yaml", PROJECT / "cluster" / "on-premises.yaml")
LOOPBACK = ("127.0.0.1", "localhost")
Config = dict[str, Any]


def node_environment() -> dict[str, str]:
    """What cluster/node.env says."""
    lines = (PROJECT / "cluster" / "node.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def load(path: Path) -> Config:
    config: Config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def problems(config: Config) -> list[str]:
    """Each mistake, by the name of its field; empty where there is none."""
    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except (jsonschema.ValidationError, ValueError, AssertionError) as error:
        return [str(error).split("\n", 1)[0]]
    return [*_images(config), *_container(config), *_commands(config), *_secrets(config), *_machines(config)]


def _images(config: Config) -> Iterator[str]:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    for field, tag in (("head_image", f"{version}-cpu"), ("worker_image", version)):
        image = config["docker"].get(field, "")
        if not image.endswith(f"/prompt-corrector:{tag}"):
            yield f'docker.{field}: "{image}" is not prompt-corrector:{tag}'


def _container(config: Config) -> Iterator[str]:
    cache = node_environment()["CORRECTOR_CACHE"]
    options = [word for option in config["docker"].get("run_options", ()) for word in shlex.split(option)]
    mounts = [value for name, value in pairwise(options) if name == "--volume"]
    if not any(mount.endswith(f":{cache}") for mount in mounts):
        yield f"docker.run_options: nothing is mounted at {cache}, the node's cache"
    if "--privileged" in options:
        yield "docker.run_options: --privileged"


def _commands(config: Config) -> Iterator[str]:
    for field in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        if config.get(field) != []:
            yield f"{field}: not empty; the image has what nodes need, and Ray's default installs another Ray"
    for command in config["head_start_ray_commands"]:
        words = command.replace("=", " ").split()
        host = words[words.index("--dashboard-host") + 1] if "--dashboard-host" in words else LOOPBACK[0]
        if host not in LOOPBACK:
            yield f"head_start_ray_commands: the dashboard is public, at {host}"


def _secrets(config: Config) -> Iterator[str]:
    if "/home/ray/.ray/auth_token" not in config.get("file_mounts", {}):
        yield "file_mounts: no /home/ray/.ray/auth_token; nodes ask for a token and would have none"
    text = yaml.safe_dump(config)
    for name in (*node_environment(), "RAY_AUTH_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        if f"{name}=" in text:
            yield f"{name}: belongs into node.env, or into the user's own file where it is secret"


@cache
def _run_instances() -> Any:
    """The shape of EC2's request, by which a misspelt key of `node_config` is found."""
    return botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape


def _machines(config: Config) -> Iterator[str]:
    if config["provider"]["type"] != "aws":
        return
    if config["provider"].get("cache_stopped_nodes", True):
        yield "provider.cache_stopped_nodes: idle nodes are stopped, and their disks paid for"
    types = config["available_node_types"]
    for name, each in types.items():
        given = each["node_config"]
        report = ParamValidator().validate(given | {"MinCount": 1, "MaxCount": 1}, _run_instances())
        if report.has_errors():
            yield f"available_node_types.{name}.node_config: {report.generate_report()}"
        for field in ("SecurityGroupIds", "IamInstanceProfile"):
            if not given.get(field):
                yield f"available_node_types.{name}.node_config.{field}: missing; Ray's own allows too much"
        if name != config["head_node_type"] and each.get("min_workers", 0) > 0:
            yield f"available_node_types.{name}.min_workers: GPUs that wait are paid for"
        if "InstanceMarketOptions" in given and not any(
            "InstanceMarketOptions" not in other["node_config"]
            and other["node_config"]["InstanceType"] == given["InstanceType"]
            and other.get("priority", 0) < each.get("priority", 0)
            for other in types.values()
        ):
            yield f"available_node_types.{name}: spot without an on-demand fallback of lower priority"


def launched(config: Config, *, gpus: int, unavailable: Sequence[str] = ()) -> dict[str, int]:
    """What Ray's autoscaler (v2) starts on an empty cluster for so many lanes: node type -> number.

    The last launch of an `unavailable` type has failed.
    """
    prepared = prepare_config(copy.deepcopy(config))
    for name, each in prepared["available_node_types"].items():  # `ray up` asks EC2 for them
        each["resources"] = {"CPU": 8} | ({"GPU": 1} if name != prepared["head_node_type"] else {})
    scaling = AutoscalingConfig(prepared, skip_content_hash=True)
    lanes = [ResourceRequestUtil.make({"CPU": 1, "GPU": 1})] * gpus
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=scaling.get_node_type_configs(),
        max_num_nodes=scaling.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count(lanes),
        recoverable_resource_availabilities=dict.fromkeys(unavailable, 0.0),
    )
    return {each.instance_type: each.count for each in ResourceDemandScheduler().schedule(request).to_launch}
