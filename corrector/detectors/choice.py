"""choose_detectors: the detectors that the user names or has configured."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import NamedTuple

from torch import Tensor

from corrector.detectors.detector import Detector
from corrector.detectors.exemplar_distance import ExemplarDistance
from corrector.detectors.judge_settings import URL_VARIABLE, JudgeSettings
from corrector.detectors.local import PREFIX, InstalledJudge, OnnxScore
from corrector.detectors.vision_language import NAME, VisionLanguage
from corrector.errors import UserError
from corrector.evaluation.feature_memory import FeatureMemory
from corrector.evaluation.verdicts import JUDGES, named_judge

_PUBLISHED = ("hadm", "vqascore")
"""Published models for which this project has an interface and no weights."""


class NotRun(NamedTuple):
    """A detector that does not run, and what it lacks."""

    name: str
    why: str


def choose_detectors(
    names: Sequence[str], exemplars: Mapping[str, Tensor], memory: Callable[[], FeatureMemory]
) -> tuple[list[Detector], list[NotRun]]:
    """The detectors of these names, in their order, and those that do not run.

    Args:
        names: `vision-language`, `exemplar-distance`, `onnx:FILE@THRESHOLD`, or a judge of an installed package; none:
            all that are configured but `exemplar-distance`, whose verdicts depend on the exemplars' style.
        exemplars: Prompt -> its exemplars `[N, 3, H, W]` in 0..1.
        memory: Makes the feature spaces, which take seconds to load.

    Raises:
        UserError: A name is unknown, a detector's settings are wrong, or none can run; the message says what there is.
    """
    installed = [name for name in sorted(entry_points(group=JUDGES).names) if name != NAME]
    known = dict.fromkeys((NAME, ExemplarDistance.name, *installed, *_PUBLISHED))
    chosen: list[Detector] = []
    not_run: list[NotRun] = []
    for name in dict.fromkeys(names or known):
        if name.startswith(PREFIX):
            chosen.append(OnnxScore(name.removeprefix(PREFIX)))
        elif name not in known:
            raise UserError(f'--detector "{name}": is unknown; {_there_is(known)}')
        elif not names and name == ExemplarDistance.name:
            not_run.append(
                NotRun(
                    name, "runs only where it is named: exemplars of another style make every image suspect"
                )
            )
        elif (lacking := _lacking(name, installed, exemplars)) is not None:
            not_run.append(NotRun(name, lacking))
        else:
            chosen.append(_made(name, exemplars, memory))
    if not chosen:
        reasons = "".join(f"\n  {name}: {why}" for name, why in not_run)
        raise UserError(f"no detector can run:{reasons}\n{_there_is(known)}")
    return chosen, not_run


def _lacking(name: str, installed: Sequence[str], exemplars: Mapping[str, Tensor]) -> str | None:
    if name == NAME:
        return None if os.environ.get(URL_VARIABLE) else f"set {URL_VARIABLE} to an API's address"
    if name == ExemplarDistance.name:
        return None if exemplars else "no prompt has exemplars; give a batch file"
    if name not in installed:
        return f'its weights are not part of this project, and no installed package registers "{name}" under {JUDGES}'
    return None


def _made(name: str, exemplars: Mapping[str, Tensor], memory: Callable[[], FeatureMemory]) -> Detector:
    if name == NAME:
        return VisionLanguage(JudgeSettings.from_environment())
    if name == ExemplarDistance.name:
        return ExemplarDistance(exemplars, memory())
    judge = named_judge(name)
    assert judge is not None
    return InstalledJudge(judge)


def _there_is(known: Mapping[str, object]) -> str:
    return f"detectors are {', '.join(known)} and {PREFIX}FILE@THRESHOLD"
