"""GET /v1/models: the base and the served adapters, and the names that the configuration gives them."""

from fastapi import Request

from serving.catalogue.snapshot import ServedAdapter, ServedVersion
from serving.ingress.app_context import AppContext
from serving.ingress.base_info import BaseInfo
from serving.ingress.http.body import api_router
from serving.ingress.http.errors import ApiError
from serving.ingress.http.openapi import errors
from serving.ingress.http.schema import Model, ModelList
from serving.ingress.image_service import AUTO
from serving.router.requested import BASE

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
    """The base, the champion of every adapter under the adapter's name, challengers as NAME@VERSION, and further names of
    these from the configuration.
    """
    app = AppContext.of(request)
    aliases = [_found(app, name) for name in sorted(app.settings.model_aliases)]
    listed = [_base_model(app.service.base)]
    for _, adapter in sorted(app.service.snapshot().adapters.items()):
        listed += _models(adapter)
    return ModelList(
        data=[
            *(model for model in listed if model.id not in app.settings.model_aliases),
            *(model for model in aliases if model is not None),
        ]
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
    found = _found(AppContext.of(request), model)
    if found is None:
        raise ApiError(
            404, "there is no such model; GET /v1/models lists them", code="model_not_found", param="model"
        )
    return found


def _found(app: AppContext, name: str) -> Model | None:
    """The model of an id, or of a name that the configuration gives it."""
    service = app.service
    wanted = app.settings.model_aliases.get(name, name)
    if wanted == service.base.name or (wanted != name and wanted in (AUTO, BASE)):
        return _base_model(service.base).model_copy(update={"id": name})
    for adapter in service.snapshot().adapters.values():
        for found in _models(adapter):
            if wanted in (found.id, f"{adapter.name}@{found.version}"):
                return found.model_copy(update={"id": name, "root": wanted})
    return None


def _base_model(base: BaseInfo) -> Model:
    return Model(
        id=base.name,
        created=0,
        owned_by="base",
        root=base.name,
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
            root=name,
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
