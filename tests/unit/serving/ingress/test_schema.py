"""The OpenAPI schema: complete, and kept to whatever is sent."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction, load_all_checks
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from serving.engine.request import GeneratedImage, ImageRequest
from serving.engine.stats import EngineStats
from serving.ingress.access.key_file import KeyFile, new_key
from serving.ingress.app import create_app
from serving.ingress.image_service import EngineClient, PreviewCallback
from serving.settings import IngressSettings
from tests.support.ingress import World

load_all_checks()
KEY, SECRET = new_key("schemathesis")
OPERATIONS = (
    ("POST", "/v1/images/generations"),
    ("POST", "/v1/route"),
    ("POST", "/v1/feedback"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
)
EXAMINED = [
    *((GenerationMode.POSITIVE, *operation) for operation in OPERATIONS),
    # To the others nothing can be sent that is wrong.
    *(
        (GenerationMode.NEGATIVE, *operation)
        for operation in OPERATIONS
        if operation[0] == "POST" or "{" in operation[1]
    ),
]


class Brief:
    """Engines that draw in one step, whatever is asked for."""

    def __init__(self, engines: EngineClient) -> None:
        self._engines = engines

    async def stats(self) -> EngineStats | None:
        return await self._engines.stats()

    async def generate(
        self, request: ImageRequest, on_preview: PreviewCallback | None = None
    ) -> GeneratedImage:
        return await self._engines.generate(replace(request, num_inference_steps=1), on_preview)


@pytest.fixture(scope="module")
def api(world: World, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path: Path = tmp_path_factory.mktemp("keys") / "keys.json"
    KeyFile(keys=(KEY,)).write(path)
    app = create_app(replace(world.service, engines=Brief(world.service.engines)), IngressSettings(keys=path))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize(("mode", "method", "path"), EXAMINED)
def test_whatever_is_sent_the_answer_is_one_of_the_schemas(
    api: Any, mode: GenerationMode, method: str, path: str
) -> None:
    operation = api[path][method]
    # The schema cannot say that 63x64 is no size of this base, or that a stream has one image: those are refused.
    excluded: list[CheckFunction] = [positive_data_acceptance]
    if mode is GenerationMode.NEGATIVE:
        excluded.append(ignored_auth)  # takes our valid key for a wrong one that it made up

    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def sent(case: Any) -> None:
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {SECRET}"}
        case.call_and_validate(excluded_checks=excluded)

    sent()


def test_every_path_is_described_to_the_last_field(world: World) -> None:
    described = create_app(world.service, IngressSettings()).openapi()
    operations = {
        (method.upper(), path): operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == set(OPERATIONS)
    for (_, path), operation in operations.items():
        assert operation["summary"]
        assert operation["description"]
        assert "422" not in operation["responses"]
        if path.startswith("/v1"):
            assert operation["security"]
            for status, response in operation["responses"].items():
                assert response["description"]
                if status not in ("200", "default"):
                    assert response["content"]["application/json"]["example"]["error"]["message"], (
                        path,
                        status,
                    )
    request = described["components"]["schemas"]["ImagesRequest"]
    assert all(field["description"] for field in request["properties"].values())
    assert request["additionalProperties"] is False
    assert {"PartialImage", "CompletedImage", "ErrorBody"} <= set(described["components"]["schemas"])
