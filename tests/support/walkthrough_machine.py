"""A checkout of its own for the walk through the guides: its servers, its run folder, and a user who types commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster import ports, services
from cluster.mlflow_server import MlflowServer
from cluster.services import States
from tests.support.guides import Block
from tests.support.paths import PROJECT
from tests.support.waiting import LONG

PERSON, CAT = "person-lying-grass", "cat-running-snow"
PROMPTS = {
    PERSON: ("a person lying on the grass", "a person sitting on the grass"),
    CAT: ("a cat running on the snow", "a cat sitting on the snow"),
}
# As little as there can be: what the walk is about begins when the adapters are registered.
EVALUATION = {
    "images": 16,
    "guard_images": 2,
    "hard_negatives": 1,
    "hard_negative_images": 2,
    "num_inference_steps": 4,
    "permutations": 19,
    "bootstrap": 20,
}
_YIELDING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
"""A lane's threads sleep while they wait: spinning ones take the cores from other tests."""
_COPIED = ("cluster", "jobs")
_LINKED = ("corrector", "serving")


class Machine:
    """A checkout in `root` whose example batch is small and whose MLflow listens on a free port.

    `cluster` is copied because it keeps its state beside its own files, `jobs` because its example batch is replaced.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for package in _COPIED:
            shutil.copytree(PROJECT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
        for package in _LINKED:
            (root / package).symlink_to(PROJECT / package)
        (root / ".venv").symlink_to(sys.prefix)
        for file in ("pyproject.toml", "constraints.txt"):
            shutil.copyfile(PROJECT / file, root / file)
            os.utime(root / file, (0, 0))  # so that make finds the environment up to date
        makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
        port = ports.choose("port", None, taken=set())
        (root / "Makefile").write_text(
            makefile.replace("cluster.services up", f"cluster.services up --mlflow-port={port}")
        )
        self.write_batch(PERSON, CAT)

    def write_batch(self, *names: str) -> None:
        """Let the example batch hold these prompts."""
        prompts = [
            {
                "name": name,
                "prompt": PROMPTS[name][0],
                "exemplars": "exemplars/" + PROMPTS[name][0].replace(" ", "-").removeprefix("a-"),
                "guard_prompts": [PROMPTS[name][1]],
            }
            for name in names
        ]
        batch = {
            "base": "embedded",
            "defaults": {"rank": 8, "steps": 6, "learning_rate": 2e-3},
            "evaluation": EVALUATION,
            "prompts": prompts,
        }
        (self.root / "jobs" / "examples" / "people.yaml").write_text(yaml.safe_dump(batch))

    @property
    def states(self) -> States:
        """The servers' state folders."""
        return States(self.root / ".servers", self.root / ".local")

    @property
    def mlflow(self) -> MlflowServer:
        """The MLflow server that runs."""
        running = services.current(states=self.states).mlflow
        assert running is not None
        return running

    def run(
        self, block: Block, *, after: Sequence[str] = (), ends_badly: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Type a guide's block, after the commands that the same shell was given before.

        Six training steps pass no gate: each `promote` names the version and the reason that it then asks for, and with
        `ends_badly` the block goes on after a job that ends with status 1.
        """
        text = re.sub(
            r"(corrector\.registry promote \S+)( \d+)?$",
            lambda found: f'{found[1]}{found[2] or " 1"} --why "the walk"',
            block.text,
            flags=re.MULTILINE,
        )
        return self.shell("\n".join(["set +e" if ends_badly else "set -e", *after, text]))

    def registry(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m corrector.registry ARGUMENTS`, in a shell that knows where the servers are."""
        return self.with_services("-m", "corrector.registry", *arguments)

    def with_services(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python ARGUMENTS` in a shell that knows where the servers are."""
        return self.shell(
            f'eval "$(.venv/bin/python -m cluster.services env)"\nexec {shlex.join([sys.executable, *arguments])}'
        )

    def status_of_services(self) -> int:
        """The exit status of `python -m cluster.services status`."""
        return self.shell(".venv/bin/python -m cluster.services status").returncode

    def result(self, run: str) -> dict[str, dict[str, Any]]:
        """Name -> what `result.json` of a run says of each prompt."""
        found = json.loads((self.root / "runs" / run / "result.json").read_text())
        return {prompt["name"]: prompt for prompt in found["prompts"]}

    def state_of_registry(self) -> dict[str, Any]:
        """All that MLflow knows of what is registered: aliases, decisions, and every version with its tags."""
        from mlflow import MlflowClient

        client = MlflowClient(self.mlflow.tracking_uri, self.mlflow.tracking_uri)
        return {
            model.name: {
                "aliases": dict(model.aliases),
                "tags": dict(model.tags),
                "versions": {
                    version.version: (version.source, version.run_id, dict(version.tags))
                    for version in client.search_model_versions(f"name = '{model.name}'")
                },
            }
            for model in client.search_registered_models()
        }

    def aliases(self, name: str) -> dict[str, str]:
        """Alias -> version of a registered model."""
        return {alias: str(version) for alias, version in self.state_of_registry()[name]["aliases"].items()}

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run it in the checkout, for a user who has neither S3 nor MLflow of their own."""
        theirs = re.compile(r"AWS_|MLFLOW_|RAY_|CORRECTOR_|PYTHONPATH$")
        environment = {name: value for name, value in os.environ.items() if not theirs.match(name)}
        return subprocess.run(
            ["bash", "-c", script],
            cwd=self.root,
            env={**environment, "HOME": str(self.root), **_YIELDING},
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
