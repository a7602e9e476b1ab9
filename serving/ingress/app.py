"""create_app: the ASGI application."""

from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from serving.ingress.access.authentication import Authenticator
from serving.ingress.access.limits import RateLimits
from serving.ingress.access.middleware import AccessMiddleware
from serving.ingress.app_context import AppContext
from serving.ingress.http import errors, openapi
from serving.ingress.http.headers import EXPOSED
from serving.ingress.image_service import ImageService
from serving.ingress.observer import IngressObserver
from serving.ingress.routes import feedback, health, images, models, playground
from serving.settings import IngressSettings

VERSION = "1"
"""The API's version; it changes with an incompatible change."""


def create_app(
    service: ImageService, settings: IngressSettings, observer: IngressObserver | None = None
) -> FastAPI:
    """The API and its page over a service. Call it in the process that serves it: the application cannot be pickled.

    Raises:
        UserError: The file of keys cannot be read.
    """
    observer = observer or IngressObserver()
    # FastAPI's own documentation pages load scripts from elsewhere; the schema is at /openapi.json.
    app = FastAPI(version=VERSION, docs_url=None, redoc_url=None)
    limits = RateLimits()
    executor = ThreadPoolExecutor(settings.encoding_threads, "images")
    app.state.context = AppContext(service, settings, limits, observer, executor)
    for routes in (images, models, feedback, health, playground):
        app.include_router(routes.router)
    errors.install(app)
    openapi.install(app)
    authenticator = Authenticator(settings.keys, anonymous_versions=settings.anonymous_versions)
    app.add_middleware(AccessMiddleware, authenticator=authenticator, limits=limits, observer=observer)
    if settings.cors_origins:
        # Outside the keys: a browser sends none with a preflight, and a page must be able to read that its key is wrong.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_credentials=settings.cors_credentials,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("*",),
            expose_headers=EXPOSED,
        )
    return app
