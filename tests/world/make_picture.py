"""Draws the README's picture from a finished run: `python -m tests.world.make_picture runs/people [OUT.png]`.

A row a prompt; the first seeds of the prompt itself, before on the left and after on the right, none left out.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from corrector.record.correction_record import CorrectionRecord
from corrector.report import read_run
from tests.support.paths import PROJECT

PER_ARM = 5
SIDE = 128
GAP = 4
MIDDLE = 28
TITLE = 26
HEAD = 26


def make_picture(run: Path) -> Image.Image:
    """The picture of all records of a run folder."""
    records, _ = read_run(run)
    arm = PER_ARM * (SIDE + GAP) - GAP
    width, row = 2 * arm + MIDDLE, TITLE + SIDE + GAP
    picture = Image.new("RGB", (width, HEAD + len(records) * row), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=15)
    for left, title in (
        (0, "Before: the base"),
        (arm + MIDDLE, "After: the base with its adapter, same seeds"),
    ):
        draw.text((left, 5), title, fill="black", font=font)
    for number, (folder, record) in enumerate(records):
        top = HEAD + number * row
        draw.text((0, top + 5), record.prompt, fill="#555555", font=font)
        images = CorrectionRecord.images(folder)
        own = [index for index, prompt in enumerate(record.sampled_prompts) if prompt == record.prompt]
        for left, paths in ((0, images.before), (arm + MIDDLE, images.after)):
            for place, index in enumerate(own[:PER_ARM]):
                with Image.open(paths[index]) as image:
                    tile = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
                picture.paste(tile, (left + place * (SIDE + GAP), top + TITLE))
    return picture


if __name__ == "__main__":
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else PROJECT / "jobs/examples/before-after.png"
    make_picture(Path(sys.argv[1])).save(target, optimize=True)
    print(target)
