"""The HTML of a survey: one template whose script and style are in the page, allowed by their hashes."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources

from fastapi import Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from corrector.preference.survey import QUESTIONS, Survey


def survey_page(survey: Survey) -> Response:
    """The page on which a rater votes."""
    questions = {question: QUESTIONS[question] for question in survey.questions}
    return _page(survey.title, questions=questions)


def closed_page(survey: Survey) -> Response:
    """Says that the survey takes no more votes."""
    return message_page(survey.title, "This survey is closed. Thank you to everyone who took part.", 200)


def message_page(heading: str, text: str, status: int) -> Response:
    """A page without a script."""
    return _page(heading, text=text, status=status)


def _page(
    title: str, *, text: str | None = None, questions: dict[str, str] | None = None, status: int = 200
) -> Response:
    template, script, style = _parts()
    inline = {"script": Markup(script), "style": Markup(style)}  # noqa: S704  # our own files
    html = template.render(title=title, text=text, questions=questions, **inline)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(html, status, {"content-security-policy": policy})


@cache
def _parts() -> tuple[Template, str, str]:
    folder = resources.files("serving.survey")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template, script, style = (
        (folder / name).read_text("utf-8") for name in ("page.html.jinja", "page.js", "page.css")
    )
    return environment.from_string(template), script, style


def _hash(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
