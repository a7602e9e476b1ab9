"""Shows which images of a folder would train, be held out or be left out, and why.

`python -m corrector.exemplars FOLDER --resolution N [--sheet out.png]`.
`python -m corrector.exemplars generate FOLDER ...` collects images from an API."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from corrector.errors import UserError
from corrector.exemplars.files import Limits, printable
from corrector.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

    from corrector.exemplars.exemplar_set import Exemplar, ExemplarSet

_SHEET_SIDE = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the split and the notes; 0 where the folder is usable, 2 where the user must act."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["generate"]:
        from corrector.exemplars.generation.command import main as generate

        return generate(given[1:])
    parser = argparse.ArgumentParser(prog="python -m corrector.exemplars", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder that holds the images")
    parser.add_argument(
        "--resolution", type=_positive, required=True, help="pixels a side, as the base draws them"
    )
    parser.add_argument(
        "--held-out-fraction", type=_fraction, default=0.5, help="share kept from training (0.5)"
    )
    parser.add_argument(
        "--fit",
        choices=("crop", "pad"),
        default="crop",
        help="how images become squares, as exemplar_fit (crop)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (0)")
    parser.add_argument("--sheet", type=Path, help="where to write a contact sheet")
    options = parser.parse_args(given)
    from corrector.exemplars.exemplar_set import load_exemplars  # imports torch

    try:
        found = load_exemplars(
            options.folder,
            resolution=options.resolution,
            held_out_fraction=options.held_out_fraction,
            seed=options.seed,
            fit=options.fit,
            limits=Limits(roots=Settings.from_environment().exemplar_roots),
        )
        _print(found)
        if options.sheet:
            _write_sheet(found, options.sheet)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 1")
    return number


def _fraction(text: str) -> float:
    number = float(text)
    if not 0.0 <= number < 1.0:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 0 and less than 1")
    return number


def _print(found: ExemplarSet) -> None:
    for title, exemplars in (("training", found.training), ("held out", found.held_out)):
        print(f"{title} ({len(exemplars)})")
        for exemplar in sorted(exemplars, key=lambda item: item.path.name):
            print(f"  {exemplar.sha256[:12]}  {printable(exemplar.path.name)}")
    print(f"notes ({len(found.notes)})")
    for note in found.notes:
        print(f"  {note}")
    print(f"set {found.digest}")


def _write_sheet(found: ExemplarSet, path: Path) -> None:
    from corrector.exemplars.fit import to_image
    from corrector.exemplars.sheet import contact_sheet

    def shown(exemplar: Exemplar) -> Image.Image:
        image = to_image(exemplar.image)
        image.thumbnail((_SHEET_SIDE, _SHEET_SIDE))
        return image

    titled = [("training", item) for item in found.training] + [("held out", item) for item in found.held_out]
    sheet = contact_sheet(
        [shown(exemplar) for _, exemplar in titled],
        columns=6,
        labels=[f"{title}\n{printable(exemplar.path.name)}" for title, exemplar in titled],
        scale=max(1, 192 // found.training[0].image.shape[-1]),
    )
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f'sheet: cannot write "{printable(str(path))}" ({error}); give a writable .png'
        ) from None
    print(f"sheet {printable(str(path))}")


if __name__ == "__main__":
    sys.exit(main())
