"""What an endpoint is made of: the arguments of `serving.app:build`, in `config.yaml` or from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from corrector.base import Precision
from corrector.settings import Settings
from serving.catalogue.settings import CatalogueSettings
from serving.engine.settings import EngineSettings
from serving.ingress.settings import IngressSettings
from serving.router.settings import RouterSettings


class Replicas(BaseModel):
    """How many there are of a deployment: between the two, by the requests that wait for it or are in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    least: int = Field(default=1, ge=1)
    most: int = Field(default=1, ge=1)
    target_requests: float = Field(
        default=16.0, gt=0, description="Requests of one replica that are aimed at."
    )


class ServingSettings(BaseModel):
    """One endpoint; every default serves the embedded base on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = Field(
        default="embedded", description="As `--base` of jobs.correct: adapters of another are refused."
    )
    precision: Precision = Field(default="auto", description="fp32, bf16, nf4, or auto.")
    tracking_uri: str | None = Field(
        default=None, description="MLflow server; None: MLFLOW_TRACKING_URI, else the local registry."
    )
    registry_root: Path | None = Field(
        default=None, description="Folder of the local registry; None: registry in CORRECTOR_RUNS."
    )
    catalogue: CatalogueSettings = CatalogueSettings()
    router: RouterSettings = RouterSettings()
    engine: EngineSettings = EngineSettings()
    ingress: IngressSettings = IngressSettings()
    engine_gpus: float | None = Field(
        default=None, ge=0, description="GPUs of an engine; None: one where the cluster has any, else none."
    )
    engine_cpus: float = Field(default=1.0, ge=0, description="CPUs that Ray sets aside for an engine.")
    ingress_cpus: float = Field(default=0.5, ge=0, description="CPUs that Ray sets aside for an ingress.")
    engines: Replicas = Replicas()
    ingresses: Replicas = Replicas(target_requests=200)

    def located(self) -> ServingSettings:
        """With every place named that the environment of this process decides."""
        found = Settings.from_environment()
        cache = found.cache / "serving"
        return self.model_copy(
            update={
                "tracking_uri": self.tracking_uri or found.tracking_uri,
                "registry_root": self.registry_root or found.runs / "registry",
                "engine": self.engine.model_copy(update={"cache": self.engine.cache or cache / "adapters"}),
                "router": self.router.model_copy(update={"cache": self.router.cache or cache / "heads"}),
                "ingress": self.ingress.model_copy(
                    update={"feedback": self.ingress.feedback or found.runs / "feedback"}
                ),
            }
        )
