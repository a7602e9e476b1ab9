"""What /readyz says while the registry is down, and who gets a challenger."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2

from corrector.feedback import FeedbackStore
from serving.catalogue.snapshot import RegistryHealth, Traffic
from serving.ingress.app import create_app
from serving.ingress.image_service import ImageService
from serving.router.embedding import Embedder
from serving.router.router import Router
from serving.settings import IngressSettings
from tests.support.app_server import serving
from tests.support.ingress import LYING, World, post
from tests.support.local_clients import LocalEngineClient, LocalFeedbackClient


@contextmanager
def changed(
    world: World,
    folder: Path,
    *,
    traffic: Traffic | None = None,
    registry: RegistryHealth | None = None,
) -> Iterator[str]:
    """The address of another app over the same engine."""
    lying = replace(world.snapshot.adapters["lying"], traffic=traffic or Traffic())
    snapshot = replace(world.snapshot, adapters={**world.snapshot.adapters, "lying": lying})
    store = FeedbackStore(folder / "feedback", remembered=100)
    service = ImageService(
        world.service.base,
        LocalEngineClient(world.engine),
        Router(snapshot, Embedder()),
        LocalFeedbackClient(store),
        snapshot=lambda: snapshot,
        registry_health=lambda: registry or RegistryHealth(),
    )
    try:
        with serving(create_app(service, IngressSettings())) as address:
            yield address
    finally:
        store.close()


def test_with_the_registry_down_it_draws_on_and_says_so(world: World, tmp_path: Path) -> None:
    down = RegistryHealth(
        False, 61.5, 3, "connection refused", {"lying@4": "its rank is 32, and 16 is served"}
    )
    with changed(world, tmp_path, registry=down) as address:
        with httpx2.Client(base_url=address, verify=False) as client:
            ready = client.get("/readyz")
        assert post(address, {"prompt": LYING, "num_inference_steps": 1}).status_code == 200
    assert ready.status_code == 200
    report = ready.json()
    assert report["ready"] is True
    assert report["registry"] == {
        "ok": False,
        "age_seconds": 61.5,
        "snapshot": 3,
    }
    assert report["refused"] == 1
    assert report["engine"] == {"waiting": 0, "drawing": 0}
    # Anybody may ask: neither errors nor names.
    assert "connection" not in ready.text and "lying" not in ready.text


def test_a_user_stays_with_a_version_and_requests_without_one_are_shared_out(
    world: World, tmp_path: Path
) -> None:
    with changed(world, tmp_path, traffic=Traffic(challenger_share=0.5)) as address:

        def alias(**user: str) -> str:
            return str(post(address, {"prompt": LYING, **user}, path="/v1/route").json()["alias"])

        nobody = Counter(alias() for _ in range(40))
        users = [{alias(user=f"u{number}") for _ in range(2)} for number in range(20)]
        body = {"prompt": LYING, "num_inference_steps": 1, "user": "u0"}
        drawn = {post(address, body).headers["x-adapter-version"] for _ in range(2)}
    assert min(nobody["champion"], nobody["challenger"]) > 5
    assert all(len(found) == 1 for found in users)
    assert set.union(*users) == {"champion", "challenger"}
    assert drawn == {{"champion": "1", "challenger": "2"}[next(iter(users[0]))]}
