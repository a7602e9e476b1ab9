"""Other people's clients, as they are installed from the registries, draw at the endpoint. What a client sends is its own
affair: its scripts are in `clients/`.

Where the registries cannot be reached they are skipped, unless REQUIRE_CLIENTS is set, as in continuous integration.
"""

from __future__ import annotations

import base64
import io
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster import ports
from tests.support.client_environments import NotInstalled, client_environment
from tests.support.endpoint import Endpoint
from tests.support.ingress import openai_client, pixels, post
from tests.support.served_registry import NAME
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.slow]

CLIENTS = Path(__file__).parent / "clients"
LYING = "a person lying on the grass"
DRAW_SECONDS = 120
START_SECONDS = 300

Environments = dict[str, Future[Path]]


@pytest.fixture(scope="module")
def environments() -> Iterator[Environments]:
    """All of them; they are installed at the same time."""
    names = ("openai_python", "javascript", "litellm")
    with ThreadPoolExecutor(len(names)) as pool:
        yield {name: pool.submit(client_environment, CLIENTS / name) for name in names}


def of(environments: Environments, name: str) -> Path:
    """The client's environment."""
    try:
        return environments[name].result()
    except NotInstalled as error:
        if os.environ.get("REQUIRE_CLIENTS"):
            raise
        pytest.skip(str(error))


def drawn(endpoint: Endpoint, command: list[Path | str], script: Path, cwd: Path) -> list[str]:
    """The lines that a client's script prints, each an image."""
    there = {"BASE_URL": f"{endpoint.address}/v1", "PROMPT": LYING}
    with script.open() as source:
        done = subprocess.run(
            command,
            stdin=source,
            cwd=cwd,
            env=os.environ | there,
            capture_output=True,
            check=False,
            text=True,
            timeout=DRAW_SECONDS,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def made_with(image: str) -> str:
    """The adapter that the file of an image names."""
    with Image.open(io.BytesIO(base64.b64decode(image))) as opened:
        return str(opened.info["adapter"])


def expected(endpoint: Endpoint) -> np.ndarray:
    """The image that every client gets with these settings."""
    return pixels(endpoint.draw(LYING).json()["data"][0]["b64_json"])


def test_openai_in_python(endpoint: Endpoint, environments: Environments) -> None:
    folder = of(environments, "openai_python")
    images = drawn(endpoint, [folder / "bin/python", "-"], CLIENTS / "openai_python/draw.py", folder)
    assert len(images) == 2
    for image in images:
        assert np.array_equal(pixels(image), expected(endpoint))


@pytest.mark.parametrize(("script", "same"), [("openai.mjs", 2), ("vercel.mjs", 1)])
def test_clients_in_javascript(
    endpoint: Endpoint, environments: Environments, script: str, same: int
) -> None:
    """`same`: how many of the images are asked for with a seed."""
    folder = of(environments, "javascript")
    command: list[Path | str] = [folder / "bin/node", "--input-type=module", "-"]
    images = drawn(endpoint, command, CLIENTS / "javascript" / script, folder)
    assert [made_with(image) for image in images] == [NAME] * (2 if script == "openai.mjs" else 3)
    for image in images[:same]:
        assert np.array_equal(pixels(image), expected(endpoint))


@contextmanager
def litellm_proxy(folder: Path, endpoint: Endpoint, log: Path) -> Iterator[str]:
    """The address of LiteLLM's proxy before the endpoint."""
    port = ports.choose("port", None, taken=set())
    there = {
        "BASE_URL": f"{endpoint.address}/v1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
    }
    config = str(CLIENTS / "litellm/proxy.yaml")
    arguments = ["--config", config, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as said:
        proxy = subprocess.Popen(
            [folder / "bin/litellm", *arguments],
            cwd=folder,
            env=os.environ | there,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(
                lambda: "Uvicorn running on" in log.read_text() or proxy.poll() is not None, START_SECONDS
            )
            assert proxy.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            proxy.terminate()
            proxy.wait(60)


def test_litellms_proxy_before_the_endpoint(
    endpoint: Endpoint, environments: Environments, tmp_path: Path
) -> None:
    with litellm_proxy(of(environments, "litellm"), endpoint, tmp_path / "proxy.log") as address:
        client = openai_client(address, "sk-proxy")
        seeded = client.images.generate(
            model="corrected", prompt=LYING, extra_body={"seed": 7, "num_inference_steps": 2}
        )
        assert seeded.data and seeded.data[0].b64_json
        assert np.array_equal(pixels(seeded.data[0].b64_json), expected(endpoint))
        named = client.images.generate(model="gpt-image-1", prompt=LYING, quality="standard", user="ann")
        assert named.data and named.data[0].b64_json
        assert made_with(named.data[0].b64_json) == NAME
        headers = {"authorization": "Bearer sk-proxy"}
        refused = post(address, {"model": "corrected", "prompt": LYING, "seed": -1}, headers=headers)
        assert refused.status_code == 400
        assert "leave it out for a random one" in refused.json()["error"]["message"]
