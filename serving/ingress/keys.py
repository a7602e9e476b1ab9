"""API keys of the endpoint: add, list, disable, enable and remove. A running server sees the change within a second.

python -m serving.ingress.keys add NAME --requests-per-minute 60 --concurrent-images 8
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from corrector.errors import UserError
from serving.ingress.access.key_file import KeyFile, new_key


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 2 for a mistake of the user."""
    options = _parser().parse_args(arguments)
    path: Path = options.file
    try:
        if options.command == "list":
            _list(KeyFile.read(path))
            return 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            file = KeyFile.read(path) if path.exists() or options.command != "add" else KeyFile()
            _changed(file, options).write(path)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _changed(file: KeyFile, options: argparse.Namespace) -> KeyFile:
    name: str = options.name
    if options.command == "add":
        if name in (key.name for key in file.keys):
            raise UserError(f'there is a key "{name}" already; remove it first, or choose another name')
        key, secret = new_key(
            name,
            requests_per_minute=options.requests_per_minute,
            concurrent_images=options.concurrent_images,
            versions=options.versions,
        )
        print("The key, which is shown only now:", file=sys.stderr)
        print(secret)
        return file.replacing(name, key)
    key = file.get(name)
    if options.command == "remove":
        return file.replacing(name)
    return file.replacing(name, key.model_copy(update={"disabled": options.command == "disable"}))


def _list(file: KeyFile) -> None:
    for key in sorted(file.keys, key=lambda key: key.name):
        limits = [
            f"{key.requests_per_minute} requests per minute" if key.requests_per_minute else "",
            f"{key.concurrent_images} images at once" if key.concurrent_images else "",
            "any version" if key.versions == "any" else "",
            "disabled" if key.disabled else "",
        ]
        print(f"{key.name}\t{key.created:%Y-%m-%d}\t{', '.join(filter(None, limits)) or 'no limits'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.ingress.keys", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    summaries = {
        "add": "make a key and print it, once",
        "list": "names, dates and limits",
        "disable": "answer a key with 403",
        "enable": "accept it again",
        "remove": "forget a key",
    }
    for name, summary in summaries.items():
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("--file", type=Path, default=Path("keys.json"), help="default: %(default)s")
        if name != "list":
            command.add_argument("name", metavar="NAME")
        if name == "add":
            command.add_argument("--requests-per-minute", type=int, metavar="N", help="default: no limit")
            command.add_argument(
                "--concurrent-images",
                type=int,
                metavar="N",
                help="images that wait or are drawn; default: no limit",
            )
            command.add_argument(
                "--versions",
                choices=("reviewed", "any"),
                default="reviewed",
                help="versions of adapters that may be drawn; any: also those that no reviewer approved; default: %(default)s",
            )
    return parser


if __name__ == "__main__":
    sys.exit(main())
