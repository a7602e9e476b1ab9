"""IngressObserver: hooks for metrics."""

from serving.router.decision import Decision


class IngressObserver:
    """Called by the ingress; a method must not block. This one does nothing."""

    def routed(self, decision: Decision) -> None:
        """The prompt of an images request was routed."""

    def rejected(self, status: int, code: str) -> None:
        """A request was answered with an error."""

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request has ended; `route` is the path's template, such as /v1/models/{model}, and "" where there is none."""

    def generated(self, decision: Decision, queue_seconds: float, denoise_seconds: float) -> None:
        """An image was drawn."""

    def feedback_lost(self) -> None:
        """A request that was answered with images could not be stored: it can get no verdict."""
