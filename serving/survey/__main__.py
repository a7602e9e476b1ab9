"""Serve a survey's page on this machine, without the endpoint: `python -m serving.survey SURVEY [--port 8080]`."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from corrector.errors import UserError
from corrector.preference.survey_folder import open_survey


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.survey", description=__doc__.partition(":")[0] + "."
    )
    parser.add_argument("survey", type=Path, metavar="SURVEY", help="the survey's folder")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this machine only")
    parser.add_argument("--port", type=int, default=8080, help="default: %(default)s")
    parser.add_argument(
        "--database",
        metavar="URL",
        help="SQLAlchemy URL of the votes (default: CORRECTOR_DATABASE, or SQLite in the survey's folder)",
    )
    options = parser.parse_args(arguments)
    try:
        return _serve(options)
    except UserError as error:
        print(f"survey: {error}", file=sys.stderr)
        return 2


def _serve(options: argparse.Namespace) -> int:
    import uvicorn

    from serving.survey.app import build_app

    with open_survey(options.survey, options.database) as (_, store):
        app = build_app(options.survey, store)
        try:
            listening = socket.create_server((options.host, options.port))
        except OSError as error:
            raise UserError(
                f"port {options.port} of {options.host}: {error.strerror}; choose another with --port"
            ) from None
        # No access log: the paths hold the raters' links.
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        print(f"survey: ready at http://{options.host}:{options.port}; stop with Ctrl-C", flush=True)
        uvicorn.Server(config).run(sockets=[listening])
    return 0


if __name__ == "__main__":
    sys.exit(main())
