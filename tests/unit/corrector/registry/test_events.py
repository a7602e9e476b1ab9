"""Changes become one stream: seen by polling, or told by a webhook that proves where it comes from."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from mlflow.webhooks.delivery import _generate_hmac_signature

from corrector.registry import RegistryError
from corrector.registry.events import REPLAY_WINDOW_S, Deliveries, Event, Poller, verify_webhook
from tests.support.registering import NAME, Registering

SECRET = "correct horse battery staple"


def request(
    entity: str = "model_version_alias",
    action: str = "created",
    *,
    secret: str = SECRET,
    sent: float | None = None,
    delivery: str = "delivery-1",
    **data: Any,
) -> tuple[dict[str, str], bytes]:
    """A request as MLflow 3.17 sends it, signed by its own function."""
    body = json.dumps(
        {"entity": entity, "action": action, "timestamp": "2026-11-24T03:00:00+00:00", "data": data}
    )
    stamp = str(int(time.time() if sent is None else sent))
    signature = _generate_hmac_signature(secret, delivery, stamp, body)
    headers = {
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": stamp,
        "X-MLflow-Signature": signature,
    }
    return headers, body.encode()


def test_polling_tells_of_versions_and_of_aliases_moved_by_anybody(
    registered: Registering, root: Path, client: MlflowClient
) -> None:
    registered(1)
    poller = Poller(tracking_uri=None, root=root)
    assert poller.poll() == []
    registered(2)
    client.set_registered_model_alias(NAME, "champion", "1")
    told = [(event.kind, event.alias, event.version) for event in poller.poll()]
    assert told == [
        ("version registered", None, "2"),
        ("alias set", "candidate", "2"),
        ("alias set", "champion", "1"),
    ]
    client.set_registered_model_alias(NAME, "champion", "2")
    client.delete_registered_model_alias(NAME, "candidate")
    told = [(event.kind, event.alias, event.version) for event in poller.poll()]
    assert told == [("alias removed", "candidate", None), ("alias set", "champion", "2")]
    assert poller.poll() == []


def test_a_poll_that_fails_loses_nothing(registered: Registering, root: Path, client: MlflowClient) -> None:
    registered(1)
    poller = Poller(tracking_uri=None, root=root)
    client.set_registered_model_alias(NAME, "champion", "1")
    hidden = (root / "mlflow.db").rename(root / "hidden.db")
    with pytest.raises(RegistryError):
        poller.poll()
    hidden.rename(root / "mlflow.db")
    assert [event.alias for event in poller.poll()] == ["champion"]


@pytest.mark.parametrize(
    ("entity", "action", "data", "expected"),
    [
        (
            "model_version_alias",
            "created",
            {"alias": "champion", "version": "3"},
            ("alias set", "champion", "3"),
        ),
        ("model_version_alias", "deleted", {"alias": "champion"}, ("alias removed", "champion", None)),
        ("model_version", "created", {"version": "3"}, ("version registered", None, "3")),
    ],
)
def test_a_signed_webhook_is_an_event(
    entity: str, action: str, data: dict[str, Any], expected: tuple[str, str | None, str | None]
) -> None:
    event = verify_webhook(*request(entity, action, name="x", **data), SECRET)
    assert event is not None
    assert (event.kind, event.alias, event.version) == expected
    assert (event.name, event.delivery) == ("x", "delivery-1")


def test_headers_come_in_any_case_and_other_events_are_none() -> None:
    headers, body = request("prompt", "created", name="x")
    assert verify_webhook({key.lower(): value for key, value in headers.items()}, body, SECRET) is None


def test_what_is_not_signed_with_the_secret_is_refused() -> None:
    headers, body = request(name="x", alias="champion", version="3")
    forged = [
        ({}, body, SECRET),
        (headers, body.replace(b'"3"', b'"4"'), SECRET),
        (headers, body, "another secret"),
        (headers | {"X-MLflow-Timestamp": str(int(time.time()) + 1)}, body, SECRET),
        (headers | {"X-MLflow-Delivery-Id": "delivery-2"}, body, SECRET),
        (headers | {"X-MLflow-Signature": "v1,"}, body, SECRET),
        (headers | {"X-MLflow-Signature": "v1,ü"}, body, SECRET),
        (headers | {"X-MLflow-Signature": headers["X-MLflow-Signature"].replace("v1", "v0")}, body, SECRET),
    ]
    for arguments in forged:
        with pytest.raises(RegistryError, match="signature"):
            verify_webhook(*arguments)
    with pytest.raises(RegistryError, match="no secret"):
        verify_webhook(headers, body, "")


def test_an_old_request_is_refused_though_it_is_signed() -> None:
    headers, body = request(sent=1000, name="x", alias="champion", version="3")
    assert verify_webhook(headers, body, SECRET, now=1299) is not None
    for now in (1301, 699):
        with pytest.raises(RegistryError, match="clocks"):
            verify_webhook(headers, body, SECRET, now=now)


def test_a_signed_body_that_is_not_mlflows_is_refused() -> None:
    with pytest.raises(RegistryError, match="not one of MLflow's"):
        verify_webhook(*request(name="x"), SECRET)


def delivered(delivery: str, sent: float, now: float) -> Event:
    event = verify_webhook(
        *request(sent=sent, delivery=delivery, name="x", alias="champion", version="3"), SECRET, now=now
    )
    assert event is not None
    return event


def test_a_request_that_comes_again_while_it_is_still_taken_is_recognised() -> None:
    deliveries = Deliveries()
    ahead = 1000 + REPLAY_WINDOW_S  # the sender's clock runs ahead by all that is allowed
    assert deliveries.add(delivered("one", ahead, now=1000), now=1000)
    assert deliveries.add(delivered("two", ahead, now=1000), now=1000)
    for now in (1000, 1000 + REPLAY_WINDOW_S, ahead + REPLAY_WINDOW_S):
        assert not deliveries.add(delivered("one", ahead, now), now=now)
    with pytest.raises(RegistryError, match="clocks"):
        delivered("one", ahead, now=ahead + REPLAY_WINDOW_S + 1)


def test_an_event_that_could_not_be_acted_on_is_taken_when_it_comes_again() -> None:
    deliveries = Deliveries()
    event = delivered("one", 1000, now=1000)
    assert deliveries.add(event)
    deliveries.discard(event)
    assert deliveries.add(event)
    assert not deliveries.add(event)


def test_the_memory_of_deliveries_is_bounded_in_time_and_number() -> None:
    deliveries = Deliveries(window=10, capacity=3)
    for number in range(5):
        assert deliveries.add(delivered(str(number), 1000, now=1000), now=1000 + number)
    assert len(deliveries) == 3
    assert not deliveries.add(delivered("4", 1000, now=1000), now=1005)
    assert deliveries.add(delivered("late", 1100, now=1100), now=1100)
    assert len(deliveries) == 1


def test_changes_seen_by_polling_are_always_new(
    registered: Registering, root: Path, client: MlflowClient
) -> None:
    registered(1)
    poller = Poller(tracking_uri=None, root=root)
    client.set_registered_model_alias(NAME, "champion", "1")
    (event,) = poller.poll()
    deliveries = Deliveries()
    assert deliveries.add(event) and deliveries.add(event)
