"""From a folder to a set: what is used, what is dropped and how it is split."""

import hashlib
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from corrector.errors import UserError
from corrector.exemplars import ExemplarSet, Limits, file_digests, load_exemplars, to_tensor
from tests.benchmarks.near_duplicates import brighter, encoded, resized
from tests.support.paths import PAPER
from tests.support.pictures import content, drawn
from tests.world.scenes import Scene, render

SCENE = Scene("person", "lying", "grass")


def renders(folder: Path, count: int) -> list[Image.Image]:
    images = [render(SCENE, seed) for seed in range(count)]
    for seed, image in enumerate(images):
        image.save(folder / f"{seed:02}.png")
    return images


def names(found: ExemplarSet) -> set[str]:
    return {exemplar.path.name for exemplar in (*found.training, *found.held_out)}


def test_twenty_four_exemplars_are_twelve_and_twelve(tmp_path: Path) -> None:
    images = renders(tmp_path, 24)
    found = load_exemplars(tmp_path, resolution=64)
    assert found.training_images().shape == found.held_out_images().shape == (12, 3, 64, 64)
    assert found.notes == ()
    assert len(names(found)) == 24
    for exemplar in (*found.training, *found.held_out):
        assert torch.equal(exemplar.image, to_tensor(images[int(exemplar.path.stem)]))


@pytest.mark.parametrize(
    ("count", "fraction", "training", "held_out"),
    [
        (24, 0.25, 18, 6),
        (5, 0.5, 3, 2),
        (3, 0.5, 2, 1),
        (2, 0.5, 1, 1),
        (10, 0.3, 7, 3),
        (4, 0.99, 1, 3),
        (3, 0.0, 3, 0),
        (3, 0.01, 2, 1),
    ],
)
def test_the_split_follows_the_fraction(
    tmp_path: Path, count: int, fraction: float, training: int, held_out: int
) -> None:
    renders(tmp_path, count)
    found = load_exemplars(tmp_path, resolution=16, held_out_fraction=fraction)
    assert (len(found.training), len(found.held_out)) == (training, held_out)
    assert found.held_out_images().shape == (held_out, 3, 16, 16)


def test_the_split_knows_neither_names_nor_formats_only_pixels_and_seed(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    images = renders(one, 12)
    for number, image in enumerate(random.Random(3).sample(images, len(images))):
        image.save(other / f"{number * 7 % 12}-x.{'bmp' if number % 2 else 'png'}")
    first, second = load_exemplars(one, resolution=32), load_exemplars(other, resolution=32)
    assert [e.sha256 for e in first.training] == [e.sha256 for e in second.training]
    assert torch.equal(first.held_out_images(), second.held_out_images())
    assert first.digest == second.digest
    reseeded = load_exemplars(one, resolution=32, seed=1)
    assert {e.sha256 for e in reseeded.held_out} != {e.sha256 for e in first.held_out}
    assert len({first.digest, reseeded.digest, load_exemplars(one, resolution=16).digest}) == 3


def test_exact_duplicates_are_dropped_whatever_their_format(tmp_path: Path) -> None:
    renders(tmp_path, 4)
    Image.open(tmp_path / "02.png").save(tmp_path / "again.bmp")
    found = load_exemplars(tmp_path, resolution=64)
    assert names(found) == {"00.png", "01.png", "02.png", "03.png"}
    assert "again.bmp: has the same pixels as 02.png; dropped" in found.notes


def test_of_near_duplicates_the_one_with_most_pixels_stays(tmp_path: Path) -> None:
    images = renders(tmp_path, 4)
    resized(images[0], 2.0).save(tmp_path / "large.png")
    encoded(images[1], "JPEG").save(tmp_path / "reencoded.png")
    brighter(images[2], 1.02).save(tmp_path / "brighter.png")
    found = load_exemplars(tmp_path, resolution=64)
    assert len(names(found)) == 4
    assert "large.png" in names(found)
    assert any(
        note.startswith("00.png: is nearly the same picture as large.png (") and note.endswith("; dropped")
        for note in found.notes
    )
    assert sum("nearly the same picture" in note for note in found.notes) == 3


def test_which_duplicate_stays_does_not_hang_on_names(tmp_path: Path) -> None:
    image = render(SCENE, 0)
    pair = (content(image), content(image, "JPEG", quality=90))
    kept: list[str] = []
    for order in (pair, pair[::-1]):
        folder = tmp_path / str(len(kept))
        folder.mkdir()
        renders(folder, 1)
        render(SCENE, 1).save(folder / "other.png")
        for name, file in zip(("a", "b"), order, strict=True):
            (folder / name).write_bytes(file)
        kept.append(load_exemplars(folder, resolution=64).digest)
    assert kept[0] == kept[1]


def test_every_bad_file_gets_one_note_and_the_good_ones_are_used(tmp_path: Path) -> None:
    renders(tmp_path, 8)
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "cut.jpg").write_bytes(content(drawn(300, 300), "JPEG")[:2000])
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "flat.png").write_bytes(content(Image.new("RGB", (64, 64), (1, 2, 3))))
    (tmp_path / "clear.png").write_bytes(content(Image.new("RGBA", (64, 64), (1, 2, 3, 0))))
    found = load_exemplars(tmp_path, resolution=64)
    assert names(found) == {f"{number:02}.png" for number in range(8)}
    assert [note.split(":")[0] for note in found.notes] == [
        "clear.png",
        "cut.jpg",
        "empty.png",
        "flat.png",
        "folder.png",
        "page.jpg",
        "phone.heic",
    ]
    by_name = dict(note.split(": ", 1) for note in found.notes)
    assert by_name["empty.png"] == "is empty (0 bytes); copy it again or remove it"
    assert by_name["page.jpg"] == "holds no image; replace or remove it"
    assert by_name["flat.png"] == "is of one colour throughout; remove it"
    assert "cut off" in by_name["cut.jpg"]


def test_a_wrong_ending_costs_a_note_not_the_picture(tmp_path: Path) -> None:
    for number, name in enumerate(("jpeg.png", "png.txt", "bare")):
        kind = "JPEG" if name == "jpeg.png" else "PNG"
        (tmp_path / name).write_bytes(content(render(SCENE, number), kind))
    found = load_exemplars(tmp_path, resolution=64)
    assert names(found) == {"jpeg.png", "png.txt", "bare"}
    assert "jpeg.png: is a JPEG image by its content and read as one; rename it to .jpg" in found.notes
    assert "png.txt: is a PNG image by its content and read as one; rename it to .png" in found.notes


def test_files_that_are_no_images_share_one_note_and_hidden_ones_get_none(tmp_path: Path) -> None:
    renders(tmp_path, 8)
    for name in ("a.txt", "b.json", "c.csv", "d.md", "e.py", "f.zip", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"text")
    assert load_exemplars(tmp_path, resolution=64).notes == (
        "not images, ignored: a.txt, b.json, c.csv, d.md, e.py and 1 more",
    )


def test_an_enlarged_picture_is_noted(tmp_path: Path) -> None:
    renders(tmp_path, 8)
    render(SCENE, 99, size=48).save(tmp_path / "small.png")
    notes = load_exemplars(tmp_path, resolution=64).notes
    assert notes == ("small.png: is 48x48, enlarged 1.33 times for 64; a larger original would be sharper",)


def test_few_held_out_exemplars_are_noted(tmp_path: Path) -> None:
    renders(tmp_path, 3)
    (note,) = load_exemplars(tmp_path, resolution=64).notes
    assert note.startswith("only 1 held-out exemplar of 3: distances to them mean little")
    assert load_exemplars(tmp_path, resolution=64, held_out_fraction=0.0).notes == ()


def test_a_folder_with_nothing_usable_names_itself_and_the_reasons(tmp_path: Path) -> None:
    folder = tmp_path / "lying"
    folder.mkdir()
    (folder / "cut.png").write_bytes(content(drawn())[:50])
    with pytest.raises(UserError) as caught:
        load_exemplars(folder, resolution=64)
    message = str(caught.value)
    assert message.startswith(f'exemplars: no usable image in "{folder}"; expected ')
    assert ".png" in message
    assert "\n  cut.png: " in message


def test_one_picture_is_too_few_to_hold_any_out(tmp_path: Path) -> None:
    renders(tmp_path, 1)
    with pytest.raises(UserError, match="only 1 usable image where 2 are needed"):
        load_exemplars(tmp_path, resolution=64)
    assert len(load_exemplars(tmp_path, resolution=64, held_out_fraction=0.0).training) == 1


def test_an_empty_folder_a_missing_one_and_a_file_are_the_users_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, reason in (
        (tmp_path, "no usable image"),
        (tmp_path / "nowhere", "there is no folder"),
        (tmp_path / "file", "is a file; give the folder"),
        (Path("a\0b"), "cannot be read"),
    ):
        with pytest.raises(UserError, match=reason):
            load_exemplars(folder, resolution=64)


@pytest.mark.parametrize(("resolution", "fraction"), [(0, 0.5), (64, 1.0), (64, -0.1), (64, float("nan"))])
def test_arguments_out_of_range_are_the_callers_errors(
    tmp_path: Path, resolution: int, fraction: float
) -> None:
    with pytest.raises(ValueError, match="expected"):
        load_exemplars(tmp_path, resolution=resolution, held_out_fraction=fraction)


def test_file_digests_are_of_the_images_bytes_alone(tmp_path: Path) -> None:
    renders(tmp_path, 2)
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "empty.png").touch()
    (tmp_path / "bare").write_bytes(content(drawn()))
    digests = file_digests(tmp_path)
    assert set(digests) == {"00.png", "01.png", "bare"}
    assert digests["00.png"] == hashlib.sha256((tmp_path / "00.png").read_bytes()).hexdigest()
    with pytest.raises(UserError, match="there is no folder"):
        file_digests(tmp_path / "nowhere")


def test_the_papers_exemplars_are_all_used() -> None:
    if not (PAPER / "exemplars").is_dir():
        pytest.skip(f"the paper's images are not at {PAPER} (set CORRECTOR_PAPER_IMAGES)")
    found = load_exemplars(PAPER / "exemplars", resolution=128)
    assert (len(found.training), len(found.held_out)) == (3, 2)
    assert all("held-out" in note for note in found.notes)


def test_limits_can_be_tightened(tmp_path: Path) -> None:
    renders(tmp_path, 6)
    (tmp_path / "large.png").write_bytes(content(drawn(640, 640)))
    found = load_exemplars(tmp_path, resolution=64, limits=Limits(pixels=64 * 64))
    assert "large.png: is 640x640, 0.41 megapixels, over the limit of 0.0041; save it smaller" in " ".join(
        found.notes
    )
