"""create_app: the ASGI application."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI

from serving.ingress import errors, openapi, page
from serving.ingress.auth import KeyRing
from serving.ingress.limits import Limits
from serving.ingress.middleware import Exchanges
from serving.ingress.routes import Context, api, health
from serving.ingress.service import Observer, Service, Unobserved
from serving.ingress.settings import IngressSettings

VERSION = "1"
"""Of the API; changes where a client would have to."""


def create_app(service: Service, settings: IngressSettings, observer: Observer | None = None) -> FastAPI:
    """The API and its page over a service. Make one in the process that serves it: it holds threads and cannot be sent.

    Raises:
        UserError: The file of keys cannot be read.
    """
    observer = observer or Unobserved()
    executor = ThreadPoolExecutor(settings.encoding_threads, "images")
    # The framework's own pages of documentation load scripts from elsewhere; the schema is at /openapi.json.
    app = FastAPI(version=VERSION, docs_url=None, redoc_url=None)
    limits = Limits()
    app.state.settings = settings
    app.state.context = Context(service, settings, limits, observer, executor)
    app.include_router(api)
    app.include_router(health)
    app.include_router(page.router)
    errors.install(app)
    openapi.describe(app)
    app.add_middleware(Exchanges, keys=KeyRing(settings.keys), limits=limits, observer=observer)
    return app
