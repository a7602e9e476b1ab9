"""Keys: who may draw, how often and how much; and what the file of keys may be."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import openai
import pytest
from starlette.testclient import TestClient

from corrector.errors import UserError
from serving.adapter_identity import AdapterIdentity
from serving.ingress.access import authentication
from serving.ingress.access.authentication import Authenticator, Caller
from serving.ingress.access.key_file import KeyFile
from serving.ingress.access.limits import RateLimits
from serving.ingress.app import create_app
from serving.ingress.http.errors import ApiError
from serving.ingress.keys import main
from serving.settings import IngressSettings
from tests.support.app_server import serving
from tests.support.ingress import LYING, World, idle, openai_client, post
from tests.support.paused_engine import paused
from tests.support.waiting import wait_until


def add(path: Path, name: str, *options: str, capsys: pytest.CaptureFixture[str]) -> str:
    """A new key."""
    assert main(["add", name, "--file", str(path), *options]) == 0
    return capsys.readouterr().out.strip()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "content-type": "application/json"}


def test_only_keys_of_the_file_draw_and_changes_count_at_once(
    tmp_path: Path,
    world: World,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(authentication, "_REFRESH_SECONDS", 0.0)
    path = tmp_path / "keys.json"
    key = add(path, "team-a", capsys=capsys)
    body = {"prompt": LYING, "num_inference_steps": 1}
    with serving(create_app(world.service, IngressSettings(keys=path))) as address:
        assert post(address, body, headers=bearer(key)).status_code == 200
        for wrong in ("", "Bearer", f"Basic {key}", f"Bearer {key}x", f"Bearer {key[:-1]}", key):
            answer = post(address, body, headers={"authorization": wrong})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), wrong
            assert answer.headers["www-authenticate"] == "Bearer"
        # Before anything else is looked at, and for paths that do not exist.
        assert post(address, None, content=b"{").status_code == 401
        assert post(address, {}, path="/v1/nothing").status_code == 401
        with pytest.raises(openai.AuthenticationError):
            openai_client(address, "wrong").models.list()
        second = add(path, "team-b", capsys=capsys)
        assert post(address, body, headers=bearer(second)).status_code == 200
        assert main(["disable", "team-a", "--file", str(path)]) == 0
        assert post(address, body, headers=bearer(key)).status_code == 403
        with pytest.raises(openai.PermissionDeniedError) as disabled:
            openai_client(address, key).models.list()
        assert disabled.value.code == "key_disabled"
        assert main(["remove", "team-a", "--file", str(path)]) == 0
        assert post(address, body, headers=bearer(key)).status_code == 401
        path.write_text("{ half of a file")
        assert post(address, body, headers=bearer(second)).status_code == 200
        assert "the keys that were read before stay valid" in caplog.text


@pytest.mark.parametrize("prefix", ["", "/", "/images", "/v1", "/a/b/"])
def test_no_spelling_of_a_path_and_no_prefix_gets_past_the_keys(
    tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str], prefix: str
) -> None:
    path = tmp_path / "keys.json"
    key = add(path, "team", capsys=capsys)
    client = TestClient(create_app(world.service, IngressSettings(keys=path)), root_path=prefix)
    below = prefix.rstrip("/")
    assert client.get(f"{below}/v1/models", headers=bearer(key)).status_code == 200
    for tried in (
        "v1/models",
        "/v1/models",
        "v1//models",
        "v1/./models",
        "V1/models",
        "v1/models/",
        "v1/models/lying",
    ):
        answer = client.get(f"{below}/{tried}")
        assert answer.status_code == 401, tried
    for public in ("", "healthz", "readyz", "openapi.json"):
        assert client.get(f"{below}/{public}").status_code == 200, public


def test_a_key_is_kept_as_its_digest_and_by_its_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.json"
    key = add(path, "team", "--requests-per-minute", "60", "--concurrent-images", "4", capsys=capsys)
    assert len(key) > 43
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert main(["list", "--file", str(path)]) == 0
    assert "team\t" in (listed := capsys.readouterr().out)
    assert "60 requests per minute, 4 images at once" in listed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["add", "team"], 'there is a key "team" already'),
        (["add", "te am"], 'name: expected letters, digits, ".", "_" and "-"'),
        (
            ["add", "other", "--requests-per-minute", "0"],
            "requests_per_minute: expected a whole number at least 1, found 0",
        ),
        (["remove", "nobody"], 'no key "nobody"; there are: team'),
    ],
)
def test_a_mistake_changes_nothing_and_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    path = tmp_path / "keys.json"
    add(path, "team", capsys=capsys)
    before = path.read_text()
    assert main([*arguments, "--file", str(path)]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.out == ""
    assert path.read_text() == before


def test_a_file_that_is_not_one_of_keys_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(UserError, match="cannot be read"):
        Authenticator(path)
    for content, mistake in (
        ("", "not valid JSON: "),
        ("[]", "expected a JSON object"),
        ('{"keys": 3}', "keys: expected a list, found 3"),
        ('{"keys": [{"name": "a"}]}', "keys[0].sha256: missing"),
        ('{"kyes": []}', "kyes: unknown field"),
        (
            '{"keys": [{"name": "a", "sha256": "12"}]}',
            'keys[0].sha256: expected 64 hexadecimal digits, found "12"',
        ),
        (
            '{"keys": [{"name": "a", "sha256": "%s", "created": "May"}]}' % ("0" * 64),
            "keys[0].created: expected a time",
        ),
    ):
        path.write_text(content)
        with pytest.raises(UserError) as refused:
            Authenticator(path)
        assert str(refused.value).startswith(f"{path}: {mistake}")
    key = {"name": "a", "sha256": "0" * 64, "created": "2026-11-01T00:00:00Z"}
    path.write_text(json.dumps({"keys": [key, key]}))
    with pytest.raises(UserError, match="two keys have the same name"):
        KeyFile.read(path)


def test_without_a_file_everybody_may_draw_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ring = Authenticator(None)
    assert "everybody" in caplog.text
    assert ring.caller(None).name == "anonymous"


def test_a_key_has_its_requests_per_minute_evenly_and_a_minutes_worth_at_once() -> None:
    now = [100.0]
    limits = RateLimits(clock=lambda: now[0])
    caller, other = Caller("a", requests_per_minute=30), Caller("b", requests_per_minute=30)
    for _ in range(30):
        limits.count_request(caller)
    with pytest.raises(ApiError) as refused:
        limits.count_request(caller)
    assert refused.value.status_code == 429
    assert refused.value.headers == {"Retry-After": "2"}
    limits.count_request(other)
    now[0] += 2
    limits.count_request(caller)
    with pytest.raises(ApiError):
        limits.count_request(caller)
    now[0] += 3600
    for _ in range(30):
        limits.count_request(caller)
    with pytest.raises(ApiError):
        limits.count_request(caller)


def test_limits_of_a_key_reach_its_client_as_rate_limit_errors(
    tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.json"
    slow = add(path, "slow", "--requests-per-minute", "2", capsys=capsys)
    narrow = add(path, "narrow", "--concurrent-images", "2", capsys=capsys)
    with serving(create_app(world.service, IngressSettings(keys=path))) as address:
        client = openai_client(address, slow)
        client.models.list()
        client.models.list()
        with pytest.raises(openai.RateLimitError) as often:
            client.models.list()
        assert often.value.code == "rate_limit_exceeded"
        assert 1 <= int(often.value.response.headers["retry-after"]) <= 30

        two = {"prompt": LYING, "n": 2, "num_inference_steps": 1}
        with ThreadPoolExecutor(1) as pool:
            with paused(world.engine):
                answer = pool.submit(post, address, two, headers=bearer(narrow))
                wait_until(lambda: not idle(world))
                for stream in (False, True):
                    one = {"prompt": LYING, "num_inference_steps": 1, "stream": stream}
                    refused = post(address, one, headers=bearer(narrow))
                    assert refused.status_code == 429
                    assert refused.json()["error"]["code"] == "concurrency_limit_exceeded"
                    assert refused.headers["retry-after"] == "1"
            assert answer.result().status_code == 200
        for _ in range(3):
            one = {"prompt": LYING, "num_inference_steps": 1, "stream": True}
            assert post(address, one, headers=bearer(narrow)).status_code == 200
        never = post(address, {"prompt": LYING, "n": 3}, headers=bearer(narrow))
        assert (never.status_code, never.json()["error"]["param"]) == (400, "n")


async def find_version(name: str, version: str) -> AdapterIdentity | None:
    """The registry has version 2 of `sitting`, whose champion is 1, as well."""
    return AdapterIdentity("sitting", "2", "0" * 64) if (name, version) == ("sitting", "2") else None


def test_versions_that_nobody_approved_need_a_key_of_that_scope(
    tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.json"
    plain = add(path, "plain", capsys=capsys)
    reviewer = add(path, "reviewer", "--versions", "any", capsys=capsys)
    # A file of before there were scopes.
    written = json.loads(path.read_text())
    for key in written["keys"]:
        if key["name"] == "plain":
            assert key.pop("versions") == "reviewed"
    path.write_text(json.dumps(written))
    main(["list", "--file", str(path)])
    assert "reviewer\t" in (listed := capsys.readouterr().out) and "any version" in listed

    service = replace(world.service, find_version=find_version)
    with serving(create_app(service, IngressSettings(keys=path))) as address:

        def route(key: str, adapter: str) -> tuple[int, str | None]:
            answer = post(
                address, {"prompt": LYING, "adapter": adapter}, path="/v1/route", headers=bearer(key)
            )
            return answer.status_code, answer.json().get("error", {}).get("code")

        for reviewed in ("lying", "lying@1", "lying@challenger", "sitting@champion", "base"):
            assert route(plain, reviewed) == route(reviewer, reviewed) == (200, None)
        # Whether there is such a version is not for everybody to find out.
        for version in ("2", "3", "candidate"):
            assert route(plain, f"sitting@{version}") == (403, "version_not_reviewed")
        assert route(reviewer, "sitting@2") == (200, None)
        assert route(reviewer, "sitting@3") == (404, "model_not_found")
        for stream in (False, True):
            for field in ("adapter", "model"):
                body = {"prompt": LYING, field: "sitting@2", "stream": stream}
                refused = post(address, body, headers=bearer(plain))
                assert (refused.status_code, refused.json()["error"]["param"]) == (403, field)


def test_without_keys_the_operator_says_which_versions_may_be_drawn(world: World) -> None:
    service = replace(world.service, find_version=find_version)
    body = {"prompt": LYING, "adapter": "sitting@2"}
    for settings, status in ((IngressSettings(), 403), (IngressSettings(anonymous_versions="any"), 200)):
        with serving(create_app(service, settings)) as address:
            assert post(address, body, path="/v1/route").status_code == status
