"""Which prompts would go through an adapter, for its reviewer: `python -m serving.preview NAME[@VERSION]`.

Prompts near the registered one are generated. Those that the router would route are printed, the most doubtful first, then
those that it would not, the nearest first, each with the reason.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corrector.errors import UserError

if TYPE_CHECKING:
    from serving.router.embedding import Embedder

_GENERATED = 60
"""Paraphrases, and as many hard negatives."""


@dataclass(frozen=True)
class Previewed:
    """A prompt near the registered one.

    Attributes:
        margin: The classifier's logit above its threshold; at least 0 where the prompt is routed.
        reason: What speaks most against it.
    """

    text: str
    margin: float
    reason: str


def preview(
    prompt: str,
    paraphrases: Sequence[str],
    guard_prompts: Sequence[str],
    hard_negatives: Sequence[str],
    embedder: Embedder,
) -> list[Previewed]:
    """Generated prompts near `prompt`, none of them registered; the least doubtful first."""
    from corrector.prompts import variations
    from corrector.values import normalised
    from serving.router.prompt_classifier import RegisteredPrompts, closest
    from serving.router.weights import classifier_weights
    from serving.router.word_matching import Prompt

    texts = (prompt, *paraphrases, *guard_prompts, *hard_negatives)
    read = {text: Prompt.of(text, embedder) for text in texts}
    registered = RegisteredPrompts.of(prompt, paraphrases, guard_prompts, hard_negatives, read)
    known = set(map(normalised, read))
    generated = [
        *variations.paraphrases(prompt, _GENERATED),
        *(negative.text for negative in variations.hard_negatives(prompt, _GENERATED)),
    ]
    found = []
    for text in dict.fromkeys(generated):
        if normalised(text) not in known:
            verdict = closest(registered, Prompt.of(text, embedder))
            found.append(Previewed(text, verdict.logit - classifier_weights().threshold, verdict.reason))
    return sorted(found, key=lambda each: -each.margin)


def lines(found: Sequence[Previewed], count: int) -> Iterator[str]:
    """The report: up to `count` prompts of each kind."""
    routed = [each for each in found if each.margin >= 0]
    refused = [each for each in found if each.margin < 0]
    yield "routed to it, the most doubtful first:"
    yield from (f"  {each.text}" for each in routed[::-1][:count])
    yield "not routed to it, the nearest first:"
    yield from (f"  {each.text} ({each.reason})" for each in refused[:count])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(prog="python -m serving.preview", description=__doc__.splitlines()[0])
    parser.add_argument("adapter", help="NAME for its candidate, or NAME@VERSION; VERSION may be an alias")
    parser.add_argument("--count", type=int, default=12, help="prompts of each kind; default: %(default)s")
    options = parser.parse_args(arguments)
    name, _, version = options.adapter.partition("@")
    try:
        from serving.catalogue.registry_client import RegistryClient
        from serving.settings import ServingSettings

        settings = ServingSettings().located()
        assert settings.registry_root is not None
        client = RegistryClient(settings.tracking_uri, settings.registry_root)
        found = client.version(name, version or "candidate")
    except UserError as error:
        print(f"preview: {error}", file=sys.stderr)
        return 2
    from serving.router.embedding import Embedder

    print(f'{found.identity}, "{found.prompt}"')
    for line in lines(
        preview(found.prompt, found.paraphrases, found.guard_prompts, found.hard_negatives, Embedder()),
        options.count,
    ):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
