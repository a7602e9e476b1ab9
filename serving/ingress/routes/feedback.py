"""POST /v1/feedback."""

from fastapi import Request

from corrector.feedback import MAX_VERDICTS, Verdict
from serving.ingress.app_context import AppContext, RequestContext
from serving.ingress.http.body import api_router
from serving.ingress.http.errors import ApiError
from serving.ingress.http.openapi import errors
from serving.ingress.http.schema import FeedbackRequest, FeedbackResponse

router = api_router()


@router.post(
    "/feedback",
    operation_id="giveFeedback",
    summary="Say whether a request's images are good",
    tags=["feedback"],
    response_model=FeedbackResponse,
    responses=errors(400, 401, 403, 404, 408, 413, 429, 500),
)
async def give_feedback(body: FeedbackRequest, request: Request) -> FeedbackResponse:
    """Stores a verdict with the request's prompt, seeds and adapter; bad ones can become a batch of corrections."""
    key = RequestContext.of(request).caller.name
    verdict = Verdict(body.request_id, key, body.verdict, body.note or "")
    if not await AppContext.of(request).service.feedback.record(verdict):
        raise ApiError(
            404,
            "no request of this id was answered with images for this API key, or it is too long ago, or it has its "
            f"{MAX_VERDICTS} verdicts",
            code="request_not_found",
            param="request_id",
        )
    return FeedbackResponse(request_id=body.request_id, verdict=body.verdict)
