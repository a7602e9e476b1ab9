"""Walks of the guides: their blocks from one heading to the next, typed in one shell in a checkout of its own.

`python -m tests.support.guide_walks prompts|surveys` prints what the commands say, and the seconds of each block.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from cluster import ports
from tests.support.guides import Block, blocks
from tests.support.paths import PROJECT
from tests.support.walkthrough_machine import Machine


@dataclass(frozen=True)
class Walk:
    """A walk of a guide.

    Attributes:
        guide: Path in the project.
        ports: Port numbers in its commands, which free ones replace.
        before: Commands typed first, whose time does not count.
    """

    guide: str
    heading: str
    ports: tuple[str, ...]
    before: tuple[str, ...] = ()

    @property
    def blocks(self) -> list[Block]:
        """Its blocks, in order."""
        guide = PROJECT / self.guide
        text = guide.read_text(encoding="utf-8")
        begin = text.index(f"## {self.heading}\n")
        lines = [text.count("\n", 0, at) + 1 for at in (begin, text.index("\n## ", begin))]
        return [block for block in blocks(guide) if lines[0] < block.line < lines[1]]


PROMPTS = Walk("jobs/README.md", "From failing prompts to a corrected batch", ("8101", "8102", "8000"))
SURVEYS = Walk(
    "corrector/preference/README.md",
    "A survey and a judge, to the gate's verdict",
    ("8101", "8080"),
    ("python -m cluster.local run -- python -m jobs.correct jobs/examples/people.yaml",),
)


@dataclass(frozen=True)
class Walker:
    """Types walks in a checkout of its own in `root`, whose examples are those of the project."""

    root: Path
    machine: Machine = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "machine", Machine(self.root))
        (self.root / "tests").symlink_to(PROJECT / "tests")
        examples = "jobs/examples/people.yaml"
        (self.root / examples).write_bytes((PROJECT / examples).read_bytes())

    def walk(
        self,
        walk: Walk,
        *,
        keep: Callable[[str], bool] = lambda _: True,
        changes: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> str:
        """What the commands said, with a line `block N SECONDS` before each block; AssertionError where one failed.

        Args:
            changes: Texts in the commands -> what is typed in their place.
            keep: Whether a command, thus changed, is typed.
            before: Commands typed first.
        """
        lines = []
        for number, block in enumerate(walk.blocks, start=1):
            lines += [f"echo; echo block {number} $SECONDS", *block.commands]
        text = "\n".join([*lines, "echo; echo block end $SECONDS"])
        for old, new in (changes or {}).items():
            assert old in text, f"{walk.guide}: no {old!r} in the walk"
            text = text.replace(old, new)
        text = "\n".join(filter(keep, text.splitlines()))
        taken: set[int] = set()
        for port in walk.ports:
            free = ports.choose("port", None, taken=taken)
            taken.add(free)
            text = re.sub(rf"\b{port}\b", str(free), text)
        ending = "trap 'kill $(jobs -p) 2> /dev/null' EXIT"  # or what runs beside would hold the pipes
        begin = "\n".join(["set -e", ending, 'export PATH="$PWD/.venv/bin:$PATH"', *before])
        done = self.machine.shell(f"{begin}\n{text}")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def main(arguments: Sequence[str]) -> int:
    """Print what was said, and the table; returns the exit status."""
    walks = {"prompts": PROMPTS, "surveys": SURVEYS}
    parser = argparse.ArgumentParser()
    parser.add_argument("walk", choices=walks)
    walk = walks[parser.parse_args(arguments).walk]
    with tempfile.TemporaryDirectory() as folder:
        said = Walker(Path(folder)).walk(walk, before=walk.before)
    print(said)
    seconds = [int(found) for found in re.findall(r"^block \w+ (\d+)$", said, re.MULTILINE)]
    for number, (start, end) in enumerate(pairwise(seconds), start=1):
        print(f"block {number}: {end - start} s")
    print(f"in all {seconds[-1] - seconds[0]} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
