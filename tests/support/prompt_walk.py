"""The walk of jobs/README.md from failing prompts to a corrected batch, typed in one shell in a checkout of its own.

`python -m tests.support.prompt_walk [--small]` prints what the commands say, and the seconds of each block.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from cluster import ports
from tests.support.guides import Block, blocks
from tests.support.paths import PROJECT
from tests.support.walkthrough_machine import Machine

GUIDE = PROJECT / "jobs" / "README.md"
HEADING = "## From failing prompts to a corrected batch"
_OTHERS = ("robot", "cat-", "a cat", "cat.json")
_SMALL = {"steps: 300": "steps: 120", "--count 30": "--count 20"}


def walk_blocks() -> list[Block]:
    """The walk's blocks, in order."""
    text = GUIDE.read_text(encoding="utf-8")
    begin = text.index(HEADING)
    lines = [text.count("\n", 0, at) + 1 for at in (begin, text.index("\n## ", begin))]
    return [block for block in blocks(GUIDE) if lines[0] < block.line < lines[1]]


def script(*, small: bool) -> str:
    """The blocks as one script, with free ports; each begins with a line `block N SECONDS`.

    Args:
        small: Only the first prompt, with fewer exemplars and steps.
    """
    lines = ["set -e", 'export PATH="$PWD/.venv/bin:$PATH"']
    for number, block in enumerate(walk_blocks(), start=1):
        lines += [f"echo; echo block {number} $SECONDS", *_commands(block, small=small)]
    text = "\n".join([*lines, "echo; echo block end $SECONDS"])
    taken: set[int] = set()
    for port in ("8101", "8102", "8000"):
        free = ports.choose("port", None, taken=taken)
        taken.add(free)
        text = re.sub(rf"\b{port}\b", str(free), text)
    return text


def _commands(block: Block, *, small: bool) -> list[str]:
    commands = block.commands
    if not small:
        return commands
    kept = [re.sub(r"--decisions walk/(robot|cat)\.json", "", command) for command in commands]
    kept = [command for command in kept if not any(other in command for other in _OTHERS)]
    for full, less in _SMALL.items():
        kept = [command.replace(full, less) for command in kept]
    return kept


class PromptWalk:
    """A checkout in `root` in which the walk is typed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._machine = Machine(root)
        (root / "tests").symlink_to(PROJECT / "tests")

    def run(self, *, small: bool) -> str:
        """What the commands said; AssertionError where one failed."""
        done = self._machine.shell(script(small=small))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def main(arguments: Sequence[str]) -> int:
    """Print what was said, and the table; returns the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        said = PromptWalk(Path(folder)).run(small="--small" in arguments)
        print(said)
    seconds = [int(found) for found in re.findall(r"^block \w+ (\d+)$", said, re.MULTILINE)]
    for number, (start, end) in enumerate(pairwise(seconds), start=1):
        print(f"block {number}: {end - start} s")
    print(f"in all {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
