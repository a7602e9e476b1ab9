"""GET /healthz and /readyz, which need no key."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from serving.ingress.app_context import AppContext
from serving.ingress.http.openapi import READY_RESPONSES

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="health", summary="Whether the process lives")
async def healthz() -> dict[str, str]:
    """Always ok; that images can be drawn is for /readyz to say."""
    return {"status": "ok"}


@router.get("/readyz", operation_id="ready", summary="Whether images can be drawn", responses=READY_RESPONSES)
async def readyz(request: Request) -> Response:
    """503 where they cannot. A registry that is down does not count: what was known before is served on, and it says so.
    Anybody may ask: names and errors are in the log only.
    """
    service = AppContext.of(request).service
    stats, registry = await service.engines.stats(), service.registry_health()
    ready = stats is not None and stats.healthy
    report = {
        "ready": ready,
        "engine": {"waiting": stats.waiting, "drawing": stats.drawing} if stats else {},
        "registry": {"ok": registry.ok, "age_seconds": registry.age_seconds, "snapshot": registry.snapshot},
        "refused": len(registry.refused),
    }
    return JSONResponse(report, 200 if ready else 503)
