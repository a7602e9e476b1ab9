"""GET /v1/models: the base and the served adapters."""

from fastapi import Request

from serving.catalogue.snapshot import ServedAdapter, ServedVersion
from serving.ingress.app_context import AppContext
from serving.ingress.base_info import BaseInfo
from serving.ingress.http.body import api_router
from serving.ingress.http.errors import ApiError
from serving.ingress.http.openapi import errors
from serving.ingress.http.schema import Model, ModelList

router = api_router()


@router.get(
    "/models",
    operation_id="listModels",
    summary="List the base and the adapters",
    tags=["models"],
    response_model=ModelList,
    responses=errors(401, 403, 429, 500),
)
async def list_models(request: Request) -> ModelList:
    """The base, the champion of every adapter under the adapter's name, and challengers as NAME@VERSION."""
    service = AppContext.of(request).service
    adapters = sorted(service.snapshot().adapters.items())
    return ModelList(
        data=[_base_model(service.base), *(model for _, each in adapters for model in _models(each))]
    )


@router.get(
    "/models/{model:path}",
    operation_id="retrieveModel",
    summary="Look up the base or an adapter",
    tags=["models"],
    response_model=Model,
    responses=errors(401, 403, 404, 429, 500),
)
async def retrieve_model(model: str, request: Request) -> Model:
    """By an id of the list, or by NAME@VERSION of a champion."""
    service = AppContext.of(request).service
    if model == service.base.name:
        return _base_model(service.base)
    for adapter in service.snapshot().adapters.values():
        for found in _models(adapter):
            if model in (found.id, f"{adapter.name}@{found.version}"):
                return found.model_copy(update={"id": model})
    raise ApiError(
        404, "there is no such model; GET /v1/models lists them", code="model_not_found", param="model"
    )


def _base_model(base: BaseInfo) -> Model:
    return Model(
        id=base.name,
        created=0,
        owned_by="base",
        prompt=None,
        version=base.revision,
        sha256=None,
        alias=None,
        mode=None,
    )


def _models(adapter: ServedAdapter) -> list[Model]:
    def model(name: str, served: ServedVersion) -> Model:
        return Model(
            id=name,
            created=int(served.created.timestamp()),
            owned_by="adapter",
            prompt=adapter.prompt,
            version=served.identity.version,
            sha256=served.identity.sha256,
            alias="champion" if served is adapter.champion else "challenger",
            mode=adapter.traffic.mode,
        )

    models = [model(adapter.name, adapter.champion)]
    if adapter.challenger is not None:
        models.append(model(str(adapter.challenger.identity), adapter.challenger))
    return models
