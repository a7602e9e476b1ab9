"""Builds the image's target `cpu` on this machine, corrects a prompt inside, and prints sizes and times.

    python -m tests.image.build

Needs root, Debian's `buildah` and `debootstrap`, and the package registries, but no image registry: BASE is a Debian that
`debootstrap` makes. Packages come from where this machine's pip has them: its configuration and the folders that it names
are mounted while the image is built. All that is made lies in one temporary folder, which is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.launcher import LAUNCHER_FILES, load
from tests.support.paths import EXAMPLES, PROJECT

BASE = "localhost/debian-python:bookworm"
PROMPT = "cat-running-snow"
# What is typed into a shell of the image; each has to succeed.
CHECKS = {
    "the user is ray, 1000": '[ "$(id -un):$(id -u)" = ray:1000 ]',
    "nobody but root can write the code": "! touch /app/corrector/new && ! touch /app/corrector/__init__.py",
    "there are no build tools": "! command -v gcc cc g++ make",
    "launcher and probes find their programs": "command -v ssh rsync wget bash",
    "torch is the pinned CPU build": "python -c 'import torch; print(torch.__version__); assert torch.version.cuda is None'",
    "PostgreSQL's driver is there": "python -c 'import psycopg; print(psycopg.pq.__impl__)'",
    "Ray's commands are there": "ray --version && serve --help",
    "every node's environment is set": "grep -v '^#' /app/cluster/node.env | grep . > /tmp/wanted"
    " && env | sort > /tmp/set && sort /tmp/wanted | comm -23 - /tmp/set | { ! grep .; }",
}


@dataclass(frozen=True)
class Builder:
    """buildah, with images and containers in a folder of its own."""

    folder: Path
    environment: dict[str, str]

    def run(self, *arguments: str, folder: Path | None = None) -> str:
        """The standard output of a command; errors and logs go to the terminal. Raises CalledProcessError."""
        done = subprocess.run(
            arguments, cwd=folder, env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout.strip()

    def size(self, image: str) -> str:
        (found,) = json.loads(self.run("buildah", "images", "--json", image))
        return str(found["size"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, check, correct and print; returns 1 where a check failed, 2 where something is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.image.build", description=__doc__.split("\n", 1)[0]
    )
    parser.add_argument(
        "--driver", default="overlay", help="buildah's storage: overlay, or vfs where that is not possible"
    )
    parser.add_argument(
        "--mirror", default="http://deb.debian.org/debian", help="where debootstrap finds Debian"
    )
    options = parser.parse_args(arguments)
    missing = [
        tool for tool in ("buildah", "debootstrap", "ip", "make", "unshare") if shutil.which(tool) is None
    ]
    if missing or os.geteuid() != 0:
        print(
            f"image: this takes root, and the programs: {' '.join(missing) or 'all are there'}",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="image-") as name:
        builder = _builder(Path(name), options.driver)
        try:
            return _prove(builder, options.mirror)
        finally:
            builder.run("buildah", "rm", "--all")
            builder.run("buildah", "rmi", "--all", "--force")


def _prove(builder: Builder, mirror: str) -> int:
    tag = f"localhost/prompt-corrector:{tomllib.loads((PROJECT / 'pyproject.toml').read_text())['project']['version']}-cpu"
    checkout = _copy_of_checkout(builder.folder / "checkout")
    seconds = {"base": _timed(lambda: _make_base(builder, mirror))}
    seconds["image"] = _timed(lambda: _make_image(builder, checkout))
    with (checkout / "corrector" / "correction.py").open("a") as code:
        code.write("\n# changed\n")
    seconds["image after a change of code"] = _timed(lambda: _make_image(builder, checkout))

    container = builder.run("buildah", "from", tag)
    failed = [name for name, command in CHECKS.items() if not _passes(builder, container, tag, name, command)]
    began = time.monotonic()
    results = _correct(builder, container, tag)
    seconds["correction of one prompt"] = time.monotonic() - began

    print(f"base {builder.size(BASE)}, image {builder.size(tag)}")
    print("\n".join(f"{what}: {taken:.0f} s" for what, taken in seconds.items()))
    print(
        "\n".join(
            f"{each['name']}: {each['status']}, registered: {each['adapter'] is not None}" for each in results
        )
    )
    print(f"failed: {', '.join(failed) or 'none'}")
    return 1 if failed or [each["status"] for each in results] != ["corrected"] else 0


def _timed(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def _builder(folder: Path, driver: str) -> Builder:
    storage = folder / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/images"\nrunroot = "{folder}/run"\n'
    )
    own = {"CONTAINERS_STORAGE_CONF": str(storage), "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(folder)}
    return Builder(folder, os.environ | own)


def _copy_of_checkout(folder: Path) -> Path:
    """The files of this checkout that git knows, as they lie there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=PROJECT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / name, folder / name, follow_symlinks=False)
    return folder


def _make_base(builder: Builder, mirror: str) -> None:
    root = builder.folder / "debian"
    wanted = "--include=ca-certificates,python3,python3-venv"
    builder.run("debootstrap", "--variant=minbase", wanted, "bookworm", str(root), mirror)
    builder.run("chroot", str(root), "apt-get", "clean")
    container = builder.run("buildah", "from", "scratch")
    builder.run("buildah", "add", "--quiet", container, str(root), "/")
    builder.run("buildah", "commit", "--quiet", "--rm", container, BASE)
    shutil.rmtree(root)


def _make_image(builder: Builder, checkout: Path) -> None:
    own = ["--build-arg", f"BASE={BASE}", "--build-arg", "TORCH_INDEX=", *_pip_volumes(builder.folder)]
    builder.run(
        "make", "image", "BUILDER=buildah", "TARGETS=cpu", f"BUILD_OPTIONS={' '.join(own)}", folder=checkout
    )


def _pip_volumes(folder: Path) -> list[str]:
    """Options that mount this machine's settings of pip, and below /host the files and folders that they name."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    )
    mounted: set[Path] = set()

    def moved(found: re.Match[str]) -> str:
        path = Path(found[0])
        if not path.exists():
            return found[0]
        mounted.add(path.parent if path.name == "simple" else path)  # an index links to files beside it
        return f"/host{path}"

    settings: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        name, value = line.split("=", 1)
        value = re.sub(r"(?:(?<=file://)|(?<![\w/.:-]))/[\w./-]+", moved, value.strip("'"))
        settings.setdefault(name.rpartition(".")[2], value)  # :env: comes first, and counts
    configuration = folder / "pip.conf"
    configuration.write_text(
        "\n".join(["[global]", *(f"{key} = {value}" for key, value in settings.items())])
    )
    return [
        f"--volume={configuration}:/etc/pip.conf:ro",
        *(f"--volume={path}:/host{path}:ro" for path in sorted(mounted)),
    ]


def _passes(builder: Builder, container: str, image: str, name: str, command: str) -> bool:
    done = subprocess.run(
        _in(builder, container, image, command),
        env=builder.environment,
        check=False,
        capture_output=True,
        text=True,
    )
    print(f"{'passed' if done.returncode == 0 else 'FAILED'}: {name}", flush=True)
    if done.returncode != 0:
        print(done.stdout + done.stderr)
    return done.returncode == 0


def _in(builder: Builder, container: str, image: str, command: str, *volumes: str) -> list[str]:
    """The command, in a container, behind the image's own entry point."""
    (described,) = [json.loads(builder.run("buildah", "inspect", "--type", "image", image))]
    entry = described["OCIv1"]["config"]["Entrypoint"]
    return [
        "buildah",
        "run",
        *(f"--volume={volume}" for volume in volumes),
        container,
        "--",
        *entry,
        "bash",
        "-c",
        command,
    ]


def _correct(builder: Builder, container: str, image: str) -> list[dict[str, object]]:
    """`result.json`'s prompts, of a job with one prompt of the example batch, on a head that starts as aws.yaml says.

    Processes and network are of a namespace of their own, which ends with the job.
    """
    batch, runs = builder.folder / "batch", builder.folder / "runs"
    content = yaml.safe_load((EXAMPLES / "people.yaml").read_text())
    content["prompts"] = [prompt for prompt in content["prompts"] if prompt["name"] == PROMPT]
    shutil.copytree(EXAMPLES / "exemplars", batch / "exemplars")
    (batch / "one.yaml").write_text(yaml.safe_dump(content))
    runs.mkdir()
    os.chown(runs, 1000, 1000)
    start = load(LAUNCHER_FILES[0])["head_start_ray_commands"][-1]
    steps = (
        "ray get-auth-token --generate > /dev/null",
        start.replace("--autoscaling-config=~/ray_bootstrap_config.yaml", ""),
        "ray job submit -- python -m jobs.correct /batch/one.yaml --storage /runs",
    )
    inside = _in(builder, container, image, " && ".join(steps), f"{batch}:/batch:ro", f"{runs}:/runs")
    alone = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    subprocess.run(
        [*alone, "bash", "-c", 'ip link set lo up && exec "$@"', "bash", *inside],
        env=builder.environment,
        check=False,
    )
    results: list[dict[str, object]] = json.loads((runs / "one" / "result.json").read_text())["prompts"]
    return results


if __name__ == "__main__":
    sys.exit(main())
