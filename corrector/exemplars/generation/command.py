"""Collects images of a prompt from an API that speaks OpenAI's POST /images/generations, into an exemplar folder.

Nothing is sent before the plan was confirmed, at the terminal or by --yes. Exit status: 0 all images stored, 1 some are not,
2 the user must act, 130 stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from corrector.errors import UserError
from corrector.exemplars.files import printable
from corrector.exemplars.generation.collection import Collection
from corrector.exemplars.generation.images_api import ImagesApi
from corrector.exemplars.generation.journal import FOLDER, Journal, Outcome
from corrector.exemplars.generation.plan import Plan
from corrector.http_client import origin

_MAX_KEY_CHARACTERS = 4096


def main(arguments: Sequence[str]) -> int:
    """The command; see the module. Returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        plan, api = _plan(options), _api(options)
        with Journal.opened(options.folder, options.prompt) as journal:
            _print_plan(plan, api, journal)
            if not (options.yes or _confirmed()):
                print("nothing was sent; add --yes to collect")
                return 0
            try:
                Collection(plan, api, journal, lambda line: print(line, flush=True)).run()
            finally:
                _print_result(plan, journal)
            return 0 if journal.stored >= plan.count else 1
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _plan(options: argparse.Namespace) -> Plan:
    prompts = [options.prompt, *options.variant]
    if options.paraphrases:
        from corrector.prompts.variations import paraphrases  # reads a lexicon

        prompts += paraphrases(options.prompt, options.paraphrases)
    max_images = options.max_images or options.count
    return Plan(
        prompts=tuple(dict.fromkeys(prompts)),
        count=options.count,
        price=options.price,
        budget=options.price * max_images if options.budget is None else options.budget,
        max_images=max_images,
        images_per_request=options.images_per_request,
        parallel=options.parallel,
        patience=options.patience,
    )


def _api(options: argparse.Namespace) -> ImagesApi:
    key = os.environ.get(options.key_variable, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key or len(key) > _MAX_KEY_CHARACTERS:
        raise UserError(f"{options.key_variable}: does not hold a key; set it to the API's key")
    parameters = dict(options.parameter)
    if taken := parameters.keys() & {"model", "prompt", "n", "size", "stream"}:
        raise UserError(f"--parameter {min(taken)}: is not for this option; see --help")
    return ImagesApi(
        options.base_url, options.model, options.size, key or None, parameters, timeout=options.timeout
    )


def _print_plan(plan: Plan, api: ImagesApi, journal: Journal) -> None:
    missing = max(0, plan.count - journal.stored)
    affordable = plan.affordable(journal.spent, journal.paid_images) if missing else 0
    print(f"{missing} of {plan.count} images to collect, {api.size}, of {api.model} at {api.base_url}")
    for prompt in plan.prompts:
        print(f"  {printable(prompt)}")
    print(
        f"cost: ${min(missing, affordable) * plan.price} at ${plan.price} an image, at most ${affordable * plan.price} "
        f"where requests fail; ${journal.spent} of ${plan.budget} and {journal.paid_images} of {plan.max_images} "
        "images are spent"
    )


def _confirmed() -> bool:
    return sys.stdin.isatty() and input("send? [y/N] ").strip().lower() in ("y", "yes")


def _print_result(plan: Plan, journal: Journal) -> None:
    lines = [
        f"{journal.stored} of {plan.count} images stored in {printable(str(journal.folder))}",
        f"spent: at most ${journal.spent} of ${plan.budget}, {journal.paid_images} of {plan.max_images} images",
    ]
    for outcome, title in (
        (Outcome.REFUSED, "refused by content policy, not asked again"),
        (Outcome.UNUSABLE, f"unusable, kept in {FOLDER}/answers"),
        (Outcome.FAILED, "failed, may have been billed"),
        (Outcome.KILLED, "in flight when the process was killed, may have been billed"),
    ):
        if found := journal.ended(outcome):
            lines.append(f"{title}: requests {', '.join(str(request.number) for request in found)}")
    if journal.stored < plan.count and not plan.affordable(journal.spent, journal.paid_images):
        lines.append("the budget allows no more; raise --budget and --max-images to go on")
    print("\n".join(lines), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m corrector.exemplars generate", description=__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="where the images go; a killed collection goes on there")
    add("--prompt", type=_text, required=True, help="the failing prompt")
    add("--variant", type=_text, action="append", default=[], help="another wording to ask for as often")
    add("--paraphrases", type=_count, default=0, help="add so many generated wordings")
    add("--base-url", type=_base_url, required=True, help="such as https://api.openai.com/v1")
    add("--model", type=_text, required=True, help="such as gpt-image-1")
    add("--size", type=_text, default="1024x1024", help="as the API takes it (1024x1024)")
    add("--count", type=_count, required=True, help="images to store")
    add("--price", type=_dollars, required=True, help="dollars an image, as the API's owner bills it")
    add("--budget", type=_dollars, help="dollars that may be spent over all runs in the folder")
    add("--max-images", type=_count, help="images that may be paid for over all runs in the folder (count)")
    add("--images-per-request", type=_count, default=1, help="some models take 1 only (1)")
    add("--parallel", type=_count, default=4, help="requests at a time (4)")
    add("--timeout", type=_seconds, default=300.0, help="seconds for an answer (300)")
    add("--patience", type=_seconds, default=600.0, help="seconds to wait for a busy API (600)")
    add("--key-variable", default="OPENAI_API_KEY", help="environment variable of the key (OPENAI_API_KEY)")
    add("--parameter", type=_parameter, action="append", default=[], metavar="NAME=VALUE")
    add("--yes", action="store_true", help="send without asking")
    return parser


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("expected UTF-8") from None
    if not text.strip():
        raise argparse.ArgumentTypeError("expected some text")
    return text.strip()


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 1")
    return number


def _dollars(text: str) -> Decimal:
    try:
        dollars = Decimal(text)
    except InvalidOperation:
        dollars = Decimal("NaN")
    if not dollars.is_finite() or dollars < 0:
        raise argparse.ArgumentTypeError(f"{text}: expected dollars, such as 0.04")
    return dollars


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: expected seconds")
    return seconds


def _base_url(text: str) -> str:
    try:
        origin(urlsplit(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None
    if not (text.isascii() and text.isprintable()) or any(sign in text for sign in " ?#"):
        raise argparse.ArgumentTypeError(f"{text}: expected a URL such as https://api.openai.com/v1")
    return text.rstrip("/")


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
