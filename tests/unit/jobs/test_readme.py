"""The blocks of jobs/README.md are files and commands that the jobs take."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
import yaml

from corrector.prompts import load_batch
from tests.support.paths import EXAMPLES, PROJECT

README = (PROJECT / "jobs" / "README.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.M | re.S)


def test_the_batch_and_the_search_of_the_guide_are_accepted(tmp_path: Path) -> None:
    batch, section = map(yaml.safe_load, blocks("yaml"))
    exemplars = EXAMPLES / "exemplars" / "person-lying-on-the-grass"
    batch["prompts"][0]["exemplars"] = str(exemplars)
    path = tmp_path / "batch.yaml"
    path.write_text(yaml.safe_dump(batch | section))

    loaded = load_batch(path)

    assert loaded.prompts[0].guard_prompts == ("a person sitting on the grass",)
    assert set(loaded.search.space) == {"rank", "learning_rate", "preservation_weight"}


@pytest.mark.parametrize("command", re.findall(r"-m (jobs\.[^`|\n]+)", re.sub(r" *\\\n *", " ", README)))
def test_the_commands_of_the_guide_are_accepted(command: str) -> None:
    module, *arguments = shlex.split(command)
    importlib.import_module(module)._parser().parse_args(arguments)
