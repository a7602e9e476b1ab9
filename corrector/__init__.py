"""Correct the prompts at which a Stable Diffusion 3 base fails, without touching the base.

    base = corrector.load_base("embedded")
    prompt = corrector.FailingPrompt(prompt="...", exemplars="folder", guard_prompts=["..."])
    correction = corrector.correct(prompt, base)

The library knows diffusion and nothing of Ray: `jobs` and `serving` call it, it calls neither. Names are imported when
they are first used, because torch and diffusers take seconds to import.
"""

import logging
from typing import TYPE_CHECKING

from corrector.lazy_names import lazy_names

if TYPE_CHECKING:
    from corrector.adapters import Adapter, load_adapter
    from corrector.correction import Correction, correct
    from corrector.errors import UserError
    from corrector.exemplars import contact_sheet
    from corrector.loaded_base import Base, load_base
    from corrector.prompts import EvaluationSettings, FailingPrompt, GateThresholds, HyperParameters

__all__ = [
    "Adapter",
    "Base",
    "Correction",
    "EvaluationSettings",
    "FailingPrompt",
    "GateThresholds",
    "HyperParameters",
    "UserError",
    "contact_sheet",
    "correct",
    "load_adapter",
    "load_base",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "adapters": ("Adapter", "load_adapter"),
        "correction": ("Correction", "correct"),
        "errors": ("UserError",),
        "exemplars": ("contact_sheet",),
        "loaded_base": ("Base", "load_base"),
        "prompts": ("EvaluationSettings", "FailingPrompt", "GateThresholds", "HyperParameters"),
    },
)

# PEFT imports bitsandbytes if it is installed; its log recommends kernels that are not used here.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
