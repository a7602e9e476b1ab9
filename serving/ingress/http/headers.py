"""The headers of answers: an image's provenance, and the fields of the request that were ignored."""

from collections.abc import Sequence
from urllib.parse import quote

from serving.ingress.http.schema import Provenance

_SAFE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "") + " "
"""Visible ASCII; anything else, and the percent sign, is percent-encoded."""

DESCRIPTIONS = {
    "x-adapter": 'The adapter\'s name; "base" where there is none.',
    "x-adapter-version": "Not with the base.",
    "x-adapter-sha256": "Of the adapter's weights; not with the base.",
    "x-route": "requested, exact, paraphrase, classifier or base.",
    "x-route-score": "Probability that the prompt is the adapter's; only where the classifier was asked.",
    "x-base-revision": "Of the base's weights.",
    "x-seed": "Of the first image.",
    "x-queue-ms": "Until the first denoising step, the longest of all images; not of a stream.",
    "x-denoise-ms": "From the first denoising step to the last, the longest of all images; not of a stream.",
}
"""By the header's name, which is `x-` and the name of a field of Provenance. Every answer has x-request-id too."""
IGNORED = "x-ignored-parameters"
EXPOSED = (*DESCRIPTIONS, IGNORED, "x-request-id", "x-should-retry", "retry-after")
"""Headers that scripts of other origins may read, where the operator allows the origin."""


def provenance_headers(provenance: Provenance) -> dict[str, str]:
    """The headers of the fields that are not None."""
    headers = {}
    for name in DESCRIPTIONS:
        value = getattr(provenance, name.removeprefix("x-").replace("-", "_"))
        if value is not None:
            text = f"{value:.4f}" if isinstance(value, float) else str(value)
            headers[name] = quote(text, safe=_SAFE).strip()
    return headers


def ignored_header(fields: Sequence[str]) -> dict[str, str]:
    """The header that names the ignored fields of a request, where there are any."""
    return {IGNORED: ", ".join(fields)} if fields else {}
