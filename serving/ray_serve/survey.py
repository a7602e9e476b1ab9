"""A survey's page beside the endpoint: `serve run serving.ray_serve.survey:build folder=SURVEY --route-prefix /survey`."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict
from ray import serve

if TYPE_CHECKING:
    from fastapi import FastAPI

APPLICATION = "survey"
PREFIX = "/survey"


class SurveyArguments(BaseModel):
    """The arguments of the application."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    folder: Path
    """The survey's folder, on the head node."""
    database: str | None = None
    """SQLAlchemy URL of the votes; None: CORRECTOR_DATABASE, otherwise a SQLite file in the folder."""


class SurveyReplica:
    """The page, and the votes."""

    async def __init__(self, arguments: SurveyArguments) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        from corrector.preference.survey_folder import open_survey
        from serving.edge import check_environment
        from serving.ray_serve.deployments import log_to_stderr

        log_to_stderr()
        check_environment()
        self._folder = arguments.folder
        self._opened = ExitStack()
        opening = open_survey(arguments.folder, arguments.database)
        _, self._store = await asyncio.to_thread(self._opened.enter_context, opening)

    def __serve_build_asgi_app__(self) -> "FastAPI":
        """Called by Ray Serve after the constructor."""
        from serving.edge import RefuseRayHeaders
        from serving.survey.app import build_app

        app = build_app(self._folder, self._store)
        app.add_middleware(RefuseRayHeaders)
        return app

    def __del__(self) -> None:
        self._opened.close()


# No annotations from __future__ here: Ray Serve reads the argument's type and validates what a configuration says.
def build(arguments: SurveyArguments) -> serve.Application:
    """One replica, on the head node, where the folder is. It writes no access log: the paths hold raters' links."""
    survey = serve.deployment(
        name="survey",
        num_replicas=1,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}},
        logging_config={"enable_access_log": False},
    )
    return survey(serve.ingress()(SurveyReplica)).bind(arguments)
