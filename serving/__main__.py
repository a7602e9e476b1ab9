"""Serve on this machine until interrupted: `python -m serving [--port 8000]`.

As `serve run serving.app:app`, but it prints when it is ready, and removes its application on SIGINT, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from corrector.errors import UserError
from corrector.preference.survey_folder import read_survey

if TYPE_CHECKING:
    from serving.settings import IngressSettings

NAME = "images"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this machine only")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    parser.add_argument(
        "--versions",
        choices=("reviewed", "any"),
        default="reviewed",
        help="versions of adapters that may be drawn; any: also candidates; default: %(default)s",
    )
    parser.add_argument(
        "--alias",
        action="append",
        default=[],
        type=_alias,
        metavar="NAME=MODEL",
        help="another name for a model, as gpt-image-1=auto: what clients send as model; may be given several times",
    )
    parser.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="origin of a web page whose scripts may draw, as https://app.example; may be given several times",
    )
    parser.add_argument(
        "--survey", type=Path, metavar="FOLDER", help="serve this survey's page, too, at /survey"
    )
    options = parser.parse_args(arguments)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _serve(options)
    except UserError as error:
        print(f"serving: {error}", file=sys.stderr)
        return 2
    return 0


def _alias(text: str) -> tuple[str, str]:
    name, equals, model = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f'"{text}": expected NAME=MODEL, such as gpt-image-1=auto')
    return name, model


def _serve(options: argparse.Namespace) -> None:
    """Serve until an interrupt, then remove the applications."""
    host: str = options.host
    port: int = options.port
    survey: Path | None = options.survey
    # Mistakes are reported before these imports, since Ray and PyTorch take seconds.
    _check_free(host, port)
    if survey is not None:
        read_survey(survey)
    ingress = _ingress_settings(options)
    import ray
    from ray import serve

    from serving.app import build
    from serving.ray_serve import survey as survey_app
    from serving.settings import ServingSettings

    settings = ServingSettings(ingress=ingress)
    ray.init(log_to_driver=False, logging_level=logging.WARNING)
    # After ray.init, which sets its own handler for one of them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    serve.start(http_options={"host": host, "port": port})
    try:
        serve.run(build(settings), name=NAME, route_prefix="/")
        if survey is not None:
            arguments = survey_app.SurveyArguments(folder=survey.resolve())
            serve.run(
                survey_app.build(arguments), name=survey_app.APPLICATION, route_prefix=survey_app.PREFIX
            )
            print(f"serving: survey at http://{host}:{port}{survey_app.PREFIX}", flush=True)
        print(f"serving: ready at http://{host}:{port}; stop with Ctrl-C", flush=True)
        while True:
            signal.pause()
    except KeyboardInterrupt:
        print("serving: stopping", flush=True)
    finally:
        for name in (NAME, survey_app.APPLICATION) if survey is not None else (NAME,):
            serve.delete(name)
        if not serve.status().applications:
            serve.shutdown()  # its HTTP proxies hold the port


def _ingress_settings(options: argparse.Namespace) -> IngressSettings:
    from pydantic import ValidationError

    from serving.settings import IngressSettings

    try:
        return IngressSettings(
            anonymous_versions=options.versions,
            model_aliases=dict(options.alias),
            cors_origins=tuple(options.cors_origin),
        )
    except ValidationError as error:
        raise UserError(str(error.errors()[0]["ctx"]["error"])) from None


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _check_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"port {port} of {host}: {error.strerror}; choose another with --port") from None


if __name__ == "__main__":
    sys.exit(main())
