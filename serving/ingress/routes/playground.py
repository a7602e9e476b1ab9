"""GET /: the playground, one HTML file that loads nothing from elsewhere."""

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from fastapi import APIRouter, Response

router = APIRouter()
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@router.get("/", include_in_schema=False)
async def playground() -> Response:
    """Base and correction side by side."""
    html, policy = _page()
    return Response(
        html,
        media_type="text/html",
        headers={
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        },
    )


@cache
def _page() -> tuple[str, str]:
    """The page, and its content security policy (CSP level 3), which allows the page's script and style by their hashes."""
    html = resources.files("serving.ingress.routes").joinpath("playground.html").read_text("utf-8")
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, content in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    policy = (
        f"default-src 'none'; script-src {' '.join(hashes['script'])}; style-src {' '.join(hashes['style'])}; "
        "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy
