"""Other people's clients, pinned, each in an environment of its own below the environment of the tests."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

LOCKS = ("requirements.txt", "package.json", "package-lock.json")
INSTALL_SECONDS = 600


class NotInstalled(Exception):
    """The registries could not be reached, or lack a package."""


def client_environment(client: Path) -> Path:
    """The environment of a folder with requirements.txt, and with package-lock.json where Node's packages are wanted.

    It is installed where these files have no environment yet; older ones of the client are removed.

    Raises:
        NotInstalled: It could not be.
    """
    files = [client / name for name in LOCKS if (client / name).exists()]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    kept = Path(sys.prefix) / "clients"
    kept.mkdir(exist_ok=True)
    with (kept / f"{client.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = kept / f"{client.name}-{digest}"
        if not (folder / ".ready").exists():
            for old in kept.glob(f"{client.name}-*"):
                shutil.rmtree(old)
            _install(folder, files)
            (folder / ".ready").touch()
    return folder


def _install(folder: Path, files: list[Path]) -> None:
    venv.create(folder, symlinks=True)
    for path in files:
        shutil.copy(path, folder)
    # Everything is pinned, so there is nothing to resolve; what is imported is compiled when it is.
    chosen = ("--no-deps", "--no-compile", "--no-input", "--quiet", "--disable-pip-version-check")
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin/python")
    _run(folder, *pip, "install", *chosen, "--requirement", "requirements.txt")
    if (folder / "package-lock.json").exists():
        npm = folder / "bin/npm"
        _run(folder, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress")


def _run(folder: Path, *command: str | Path) -> None:
    path = {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    try:
        subprocess.run(
            command,
            cwd=folder,
            env=os.environ | path,
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        raise NotInstalled(f"{folder.name}: {(error.stderr or error.stdout)[-2000:]}") from None
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{folder.name}: not installed within {INSTALL_SECONDS} s") from None
