"""AppContext and RequestContext: the state that routes share, and the state of one request."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import cast

from fastapi import Request

from serving.ingress.access.authentication import ANONYMOUS, Caller
from serving.ingress.access.limits import RateLimits
from serving.ingress.image_service import ImageService
from serving.ingress.observer import IngressObserver
from serving.router.decision import Decision
from serving.settings import IngressSettings


@dataclass(frozen=True)
class AppContext:
    """What all routes use; `executor` encodes and scores images."""

    service: ImageService
    settings: IngressSettings
    limits: RateLimits
    observer: IngressObserver
    executor: Executor

    @classmethod
    def of(cls, request: Request) -> AppContext:
        """The context of the request's app."""
        return cast(AppContext, request.app.state.context)


@dataclass
class RequestContext:
    """A request and its outcome, for the access log.

    Attributes:
        decision: Where its prompt was routed; None for a request that draws nothing.
        images: Images drawn.
        code: Of the error that it was answered with.
    """

    id: str
    method: str
    path: str
    started: float = field(default_factory=time.monotonic)
    caller: Caller = ANONYMOUS
    decision: Decision | None = None
    images: int = 0
    status: int | None = None
    code: str | None = None

    @classmethod
    def of(cls, request: Request) -> RequestContext:
        """The context that the middleware made for the request."""
        return cast(RequestContext, request.state.context)

    def routing_user(self, user: str) -> str:
        """Who stays with a version of an adapter: the key's end user, or without one the request itself."""
        return f"{self.caller.name}/{user}" if user else self.id
