"""The blocks of commands in the guides: what they say, and whether every command in them would be accepted.

A block below the comment `<!-- checked, not run: REASON -->` is checked only; every other one is run by a test.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from tests.support.manifests import run_kubectl
from tests.support.paths import PROJECT

GUIDES = tuple(
    sorted(
        path
        for pattern in (
            "*.md",
            "corrector/*.md",
            "jobs/*.md",
            "corrector/preference/*.md",
            "serving/*.md",
            "cluster/**/*.md",
            "k8s/**/*.md",
        )
        for path in PROJECT.glob(pattern)
    )
)
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- checked, not run: .+ -->\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a guide; `language` is empty for commands of a shell."""

    guide: Path
    line: int
    language: str
    text: str
    is_run: bool

    def __str__(self) -> str:
        return f"{self.guide.relative_to(PROJECT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, a continued line joined, comments left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in (re.sub(r"\s+#.*$|^#.*$", "", line).strip() for line in lines) if line]


def blocks(guide: Path) -> list[Block]:
    """All fenced blocks of a guide, in order."""
    text = guide.read_text(encoding="utf-8")
    return [
        Block(
            guide,
            text.count("\n", 0, found.start()) + 1,
            found[2],
            re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE),
            is_run=not _NOT_RUN.search(text[: found.start()]),
        )
        for found in _FENCE.finditer(text)
    ]


class _Parsed(Exception):
    """The arguments were accepted; the command itself is not run."""


def check_command(command: str) -> None:
    """Fails the test where `command` names a target, module, option or path that is not there."""
    for words in _simple_commands(command):
        program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
        if program == "make":
            targets = [word for word in arguments if "=" not in word]
            makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
            assert all(
                re.search(rf"^([\w-]+ )*{target}( [\w-]+)*:", makefile, re.MULTILINE) for target in targets
            )
        elif program == "python" and arguments[0] == "-m":
            check_module(arguments[1], arguments[2:])
        elif program == "kubectl":
            _check_kubectl(arguments)
        elif program == "ray":
            _check_ray(arguments)
        elif program == "serve" and arguments[0] == "run":
            module, _, attribute = arguments[1].partition(":")
            assert hasattr(importlib.import_module(module), attribute)
        elif program == "serve":
            assert (PROJECT / arguments[-1]).is_file(), f"no file {arguments[-1]}"
        else:
            assert program in _PLAIN, f"{program}: a guide should use it only if a test can check it"


_PLAIN = frozenset(
    (".", "sed", "curl", "echo", "export", "kill", "mkdir", "pip", "eval", "base64", "helm", "true")
)


def check_module(name: str, arguments: list[str]) -> None:
    """Fails the test where `python -m NAME ARGUMENTS` is refused by its parser."""
    found = importlib.util.find_spec(name)
    assert found is not None, f"no module {name}"
    is_package = found.submodule_search_locations is not None
    module = importlib.import_module(f"{name}.__main__" if is_package else name)
    own = argparse.ArgumentParser.parse_args

    def parse(parser: argparse.ArgumentParser, *given: object, **named: object) -> None:
        own(parser, *given, **named)
        raise _Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        with pytest.raises(_Parsed):
            module.main(arguments)


def _check_kubectl(arguments: list[str]) -> None:
    """`kubectl kustomize` runs; with `--help` any other command parses its options and does nothing."""
    folders = [word for word in arguments if word.startswith("k8s/")]
    assert all((PROJECT / folder / "kustomization.yaml").is_file() for folder in folders), folders
    asked = [] if arguments[0] == "kustomize" else ["--help"]
    done = run_kubectl(*arguments, *asked)
    assert done.returncode == 0, done.stderr


def _check_ray(arguments: list[str]) -> None:
    """`ray ... [-- COMMAND]`: subcommands, options and files by Ray's own parsers, COMMAND as any other."""
    from ray.scripts.scripts import cli

    words = list(arguments)
    parser: click.Command = cli
    while isinstance(parser, click.Group):
        name = words.pop(0)
        parser = parser.commands[name]
    context = parser.make_context(name, words)
    if file := context.params.get("cluster_config_file"):
        assert (PROJECT / file).is_file(), f"no file {file}"
    if "--" in arguments:
        check_command(shlex.join(arguments[arguments.index("--") + 1 :]))


_ENDS = (">", ">>", "<", "&")
"""What follows is no argument."""


def _simple_commands(command: str) -> Iterator[list[str]]:
    """The simple commands of a line, those inside `$(...)` too; assignments before them and redirections are left out."""
    inner = re.findall(r"\$\(([^)]*)\)", command)
    outer = re.sub(r'"?\$\([^)]*\)"?', "X", command)
    for part in [part for text in (*inner, outer) for part in re.split(r"&&|\||;", text)]:
        words = shlex.split(part)
        words = words[: next((at for at, word in enumerate(words) if word in _ENDS), len(words))]
        while words and re.match(r"^\w+=", words[0]):
            words.pop(0)
        if words:
            yield words
