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
    """State that all routes share; `executor` encodes and scores images."""

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
        decision: The decision for its prompt; None for a request that draws nothing.
        images: Number of images drawn.
        code: Code of the error with which it was answered.
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
        """The user for the choice between champion and challenger: the key's end user, or the request's id without one."""
        return f"{self.caller.name}/{user}" if user else self.id
