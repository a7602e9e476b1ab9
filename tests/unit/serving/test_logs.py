"""What the endpoint's replicas log."""

from __future__ import annotations

import json
import logging

import pytest

from serving.ray_serve.deployments import log_to_stderr


@pytest.mark.parametrize("encoding", ["JSON", "TEXT"])
def test_lines_are_json_where_rays_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], encoding: str
) -> None:
    monkeypatch.setenv("RAY_LOGGING_CONFIG_ENCODING", encoding)
    for name in ("serving", "serving.access"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    log_to_stderr()
    logging.getLogger("serving.catalogue").error("refused", extra={"adapter": "grass@2"})
    logging.getLogger("serving.access").info("%s", json.dumps({"request_id": "r"}))
    refused, access = capsys.readouterr().err.splitlines()
    assert json.loads(access) == {"request_id": "r"}
    if encoding == "TEXT":
        assert refused == "ERROR serving.catalogue: refused"
    else:
        line = json.loads(refused)
        assert [line[key] for key in ("levelname", "message", "adapter")] == ["ERROR", "refused", "grass@2"]
