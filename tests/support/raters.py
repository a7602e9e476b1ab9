"""Raters in place of people: `python -m tests.support.raters LINKS [--seconds 1.7]` answers a whole survey over its links.

LINKS is a file with what `python -m corrector.preference links` printed. A rater takes the picture that the oracle calls
right, looks for `--seconds` at each pair, and answers one in ten without looking. What a rater answers depends on the
rater's number and on the two pictures alone, so that a survey of the same pictures always ends the same.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import torch
from PIL import Image
from torch import Tensor

from corrector.exemplars import to_tensor
from corrector.preference.survey import QUESTIONS
from tests.oracle import Oracle
from tests.oracle.judge import SCENES
from tests.support.surveys import HttpRater

CARELESS = 0.1
_SIDES = ("left", "right")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("links", type=Path)
    parser.add_argument("--seconds", type=float, default=1.7)
    given = parser.parse_args(arguments)
    urls = [line.split("\t")[1].rstrip("/") for line in given.links.read_text().splitlines()]
    torch.set_num_threads(1)
    oracle = Oracle.load()
    with ThreadPoolExecutor(len(urls)) as pool:
        views = list(
            pool.map(lambda each: rate(each[1], oracle, given.seconds, number=each[0]), enumerate(urls))
        )
    print(f"{len(urls)} raters answered {sum(views)} views")
    return 0


def rate(url: str, oracle: Oracle, seconds: float, *, number: int) -> int:
    """Rater `number` answers every view; returns how many."""
    rater, views = HttpRater(url), 0
    while (view := rater.view()["view"]) is not None:
        pictures = [_picture(rater, view[side]) for side in _SIDES]
        first, second = sorted(range(2), key=lambda side: hashlib.sha256(pictures[side]).digest())
        images = torch.stack([to_tensor(Image.open(io.BytesIO(each)).convert("RGB")) for each in pictures])
        right = _right(oracle, images, view["prompt"])
        random = Random(f"{number} {hashlib.sha256(pictures[first] + pictures[second]).hexdigest()}")
        guess = random.choice((_SIDES[first], _SIDES[second]))
        careless = random.choice((guess, "both bad")) if random.random() < CARELESS else None
        time.sleep(seconds)  # a person looks
        choice = careless or _preferred(right, guess)
        answer = rater.vote(view["id"], dict.fromkeys(QUESTIONS, choice), seconds)
        assert answer.status_code == 200, answer.text
        views += 1
    return views


def _picture(rater: HttpRater, name: str) -> bytes:
    answer = rater.get(f"/images/{name}.png")
    assert answer.status_code == 200
    return answer.content


def _right(oracle: Oracle, images: Tensor, prompt: str) -> list[bool]:
    """Of a prompt in other words than the world's, only the anatomy is judged."""
    scene = SCENES.get(prompt)
    return [each.intact if scene is None else each.fits(scene) for each in oracle.judge(images)]


def _preferred(right: Sequence[bool], guess: str) -> str:
    if right[0] != right[1]:
        return "left" if right[0] else "right"
    return guess if right[0] else "both bad"


if __name__ == "__main__":
    sys.exit(main())
