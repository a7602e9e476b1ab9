"""The registry of adapters in MLflow: registration, download, review and maintenance.

An adapter in the registry is immutable. It has a name, a version, a SHA-256 and its lineage.
`registration` stores it, `download` and `restore` read it. Registration sets the alias `candidate` if the
gate passed. A reviewer moves `champion` with `promotion`, with `python -m corrector.registry`, or in MLflow's own
pages; `review_log` keeps the decisions. `verify` and `garbage` maintain it. MLflow is imported only for a server, for runs,
and for a new version: `local_models` reads and reviews a local registry without it.
"""

from typing import TYPE_CHECKING

from corrector.lazy_names import lazy_names

if TYPE_CHECKING:
    from corrector.registry.download import export, fetch
    from corrector.registry.failures import RegistryError
    from corrector.registry.local import local_uri
    from corrector.registry.promotion import promote, reject, retire, rollback
    from corrector.registry.references import CANDIDATE, CHAMPION, Reference, Version, model_name
    from corrector.registry.registration import OtherBytes, RegisteredVersion, register
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "download": ("export", "fetch"),
        "failures": ("RegistryError",),
        "local": ("local_uri",),
        "promotion": ("promote", "reject", "retire", "rollback"),
        "references": ("CANDIDATE", "CHAMPION", "Reference", "Version", "model_name"),
        "registration": ("OtherBytes", "RegisteredVersion", "register"),
        "store": ("prepare",),
        "traffic": ("CHALLENGER", "set_traffic"),
    },
)
