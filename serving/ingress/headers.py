"""How an image came about, as headers."""

from __future__ import annotations

from urllib.parse import quote

from serving.ingress.schema import Provenance

_SAFE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "") + " "
"""Visible ASCII; anything else, and the percent sign, is percent-encoded."""

DESCRIPTIONS = {
    "x-adapter": 'The adapter\'s name; "base" where there is none.',
    "x-adapter-version": "Not with the base.",
    "x-adapter-sha256": "Of the adapter's weights; not with the base.",
    "x-route": "requested, exact, paraphrase, head or base.",
    "x-route-score": "Probability that the prompt is the adapter's; only where a head was asked.",
    "x-base-revision": "Of the base's weights.",
    "x-seed": "Of the first image.",
    "x-queue-ms": "Until the first denoising step, the longest of all images; not of a stream.",
    "x-denoise-ms": "From the first denoising step to the last, the longest of all images; not of a stream.",
}
"""By name, beside x-request-id, which every answer has. Values are percent-encoded where they are not visible ASCII."""


def provenance_headers(provenance: Provenance) -> dict[str, str]:
    """Those that have a value."""
    values = {
        "x-adapter": provenance.adapter,
        "x-adapter-version": provenance.adapter_version,
        "x-adapter-sha256": provenance.adapter_sha256,
        "x-route": provenance.route,
        "x-route-score": None if provenance.route_score is None else f"{provenance.route_score:.4f}",
        "x-base-revision": provenance.base_revision,
        "x-seed": provenance.seed,
        "x-queue-ms": provenance.queue_ms,
        "x-denoise-ms": provenance.denoise_ms,
    }
    return {
        name: quote(str(value), safe=_SAFE).strip() for name, value in values.items() if value is not None
    }
