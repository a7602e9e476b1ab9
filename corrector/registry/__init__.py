"""Where finished prompts are kept: records on disk (`record`) and their versions in MLflow (`versions`).

An adapter in the registry is immutable, addressed by name, version and SHA-256, and carries its lineage.
MLflow is imported only when the registry is opened.
"""

from corrector.registry.record import CorrectionRecord, CurvePoint, GuardSamples, RecordError, RecordImages
from corrector.registry.store import RegistryError, local_uri, prepare
from corrector.registry.versions import CANDIDATE, RegisteredVersion, fetch, model_name, register

__all__ = [
    "CANDIDATE",
    "CorrectionRecord",
    "CurvePoint",
    "GuardSamples",
    "RecordError",
    "RecordImages",
    "RegisteredVersion",
    "RegistryError",
    "fetch",
    "local_uri",
    "model_name",
    "prepare",
    "register",
]
