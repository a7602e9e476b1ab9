"""`make image` without a builder, and what the image holds; that it builds is proved by `python -m tests.image.build`."""

from __future__ import annotations

import re
import subprocess

from tests.support.paths import PROJECT

DOCKERFILE = (PROJECT / "cluster" / "Dockerfile").read_text(encoding="utf-8")


def test_without_a_builder_make_says_so() -> None:
    done = subprocess.run(
        ["make", "image", "BUILDERS=no-such-builder"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "image: none of these works here: no-such-builder" in done.stderr


def test_both_targets_end_with_the_code_and_an_ordinary_user() -> None:
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))
    for target in ("cpu", "gpu"):
        steps = [line for line in stages[target].splitlines() if re.match("[A-Z]+ ", line)]
        assert steps[-1] == "USER ray"
        assert "COPY --from=code /app /app" in steps
        packages = next(step for step in steps if "--constraint constraints.txt" in step)
        assert steps.index(packages) < steps.index("COPY --from=code /app /app"), (
            "a change of code installs nothing"
        )


def test_the_image_holds_every_package_of_the_project() -> None:
    listed = re.findall(r"^!(.+)$", (PROJECT / ".dockerignore").read_text(), re.MULTILINE)
    packages = {path.parent.name for path in PROJECT.glob("*/__init__.py")} - {"tests"}
    assert packages < set(listed)
    assert all((PROJECT / name).exists() for name in listed)
