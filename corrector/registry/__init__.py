"""Registered adapters: the `versions` of finished prompts in MLflow, and their `review`.

An adapter in the registry is immutable, addressed by name, version and SHA-256, and carries its lineage. Aliases are the
review: `candidate` is set when it is registered, `champion` by a reviewer, here, with `python -m corrector.registry`, or in
MLflow's own pages; `history` tells who did what, and `events` what changes. `verify` and `collect` look after what is kept.
MLflow is imported only when the registry is opened.
"""

from corrector.registry.download import export, fetch
from corrector.registry.failures import RegistryError
from corrector.registry.local import local_uri
from corrector.registry.references import CANDIDATE, CHAMPION, Reference, Version, model_name
from corrector.registry.registration import OtherBytes, RegisteredVersion, register
from corrector.registry.review import promote, reject, retire, rollback
from corrector.registry.store import prepare
from corrector.registry.traffic import CHALLENGER, set_traffic

__all__ = [
    "CANDIDATE",
    "CHALLENGER",
    "CHAMPION",
    "OtherBytes",
    "Reference",
    "RegisteredVersion",
    "RegistryError",
    "Version",
    "export",
    "fetch",
    "local_uri",
    "model_name",
    "prepare",
    "promote",
    "register",
    "reject",
    "retire",
    "rollback",
    "set_traffic",
]
