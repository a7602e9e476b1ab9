"""Every command in the guides is one that its program accepts, and every file that they link to is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.guides import GUIDES, Block, blocks, check_command
from tests.support.paths import PROJECT

SHELL = [
    block for guide in GUIDES for block in blocks(guide) if block.language in ("", "sh") and block.commands
]
PYTHON = [block for guide in GUIDES for block in blocks(guide) if block.language == "python"]


def test_each_package_has_its_guide() -> None:
    folders = {path.parent.relative_to(PROJECT).as_posix() for path in GUIDES}
    assert folders >= {".", "corrector", "jobs", "serving", "cluster", "k8s"}


@pytest.mark.parametrize("block", [block for block in SHELL if "─" not in block.text], ids=str)
def test_commands_are_accepted(block: Block) -> None:
    for command in block.commands:
        check_command(command)


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_compiles(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_links_lead_to_files(guide: Path) -> None:
    text = guide.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    missing = [target for target in targets if "://" not in target and not (guide.parent / target).exists()]
    assert not missing
