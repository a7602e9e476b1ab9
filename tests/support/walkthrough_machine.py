"""A machine of its own for the walk: its servers, its run folder, and a user who types commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import services
from cluster.mlflow_server import MlflowServer
from cluster.services import States
from tests.support.paths import EXEMPLARS, PROJECT

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


@dataclass(frozen=True)
class Machine:
    """Whatever the walk leaves behind lies in `root`."""

    root: Path

    @property
    def states(self) -> States:
        """The servers' state folders."""
        return States(self.root / "servers", self.root / "head")

    @property
    def mlflow(self) -> MlflowServer:
        """The MLflow server that runs."""
        running = services.current(states=self.states).mlflow
        assert running is not None
        return running

    def services(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        """`python -m cluster.services COMMAND`."""
        state = (f"--state={self.states.servers}", f"--head-state={self.states.head}")
        return self._python("-m", "cluster.services", command, *state, *options)

    def correct(self, *names: str, steps: int) -> list[dict[str, Any]]:
        """Submit a batch of these prompts as `make correct` does; what `result.json` says of each."""
        prompts = [
            {
                "name": name,
                "prompt": PROMPTS[name][0],
                "exemplars": str(EXEMPLARS / PROMPTS[name][0].replace(" ", "-").removeprefix("a-")),
                "guard_prompts": [PROMPTS[name][1]],
            }
            for name in names
        ]
        batch = {
            "base": "embedded",
            "defaults": {"rank": 4, "steps": steps, "learning_rate": 2e-3},
            "evaluation": EVALUATION,
            "prompts": prompts,
        }
        path = self.root / "batch.json"
        path.write_text(json.dumps(batch))
        local = (
            "-m",
            "cluster.local",
            "run",
            f"--state={self.states.head}",
            f"--services={self.states.servers}",
        )
        job = ("python", "-m", "jobs.correct", str(path), f"--storage={self.root / 'runs'}")
        ran = self._python(*local, "--", *job)
        result = self.root / "runs" / "batch" / "result.json"
        assert result.is_file(), ran.stdout + ran.stderr
        return list(json.loads(result.read_text())["prompts"])

    def registry(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m corrector.registry ARGUMENTS`, after `eval "$(python -m cluster.services env)"`."""
        return self.with_services("-m", "corrector.registry", *arguments)

    def with_services(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python ARGUMENTS` in a shell that has evaluated what `env` prints."""
        exports = self.services("env").stdout
        command = f"{exports}\nexec {shlex.join([sys.executable, *arguments])}"
        return self._run(["sh", "-c", command])

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

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run([sys.executable, *arguments])

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run it for a user who has neither S3 nor MLflow of their own."""
        theirs = re.compile(r"AWS_|MLFLOW_|RAY_|CORRECTOR_")
        environment = {name: value for name, value in os.environ.items() if not theirs.match(name)}
        return subprocess.run(
            command,
            cwd=PROJECT,
            env={**environment, "HOME": str(self.root)},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
