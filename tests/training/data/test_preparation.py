"""Real folders with everything people leave in them, prepared end to end."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contracts.errors import VerisynthError
from contracts.imaging import fit
from tests.images import dicom, discs, encoded, png, speckle, write_pngs
from training.data import preparation, prepared
from training.data.params import (
    DicomSource,
    FolderSource,
    MaskedFolderSource,
    MedmnistSource,
    Prepare,
    SkimageSource,
    Source,
    Split,
    Tiles,
    VesselMasks,
)
from training.stages.prepare import report


def wanted(source: Source, **settings: object) -> Prepare:
    defaults: dict[str, object] = {"size": 32, "channels": 3, "minimum_images": 5}
    return Prepare(source, **(defaults | settings))  # type: ignore[arg-type]


def prepare(name: str, description: Prepare, folder: Path) -> prepared.DatasetInfo:
    return preparation.prepare(name, description, "numpy", "CC0", folder)


def reasons(folder: Path) -> dict[str, str]:
    return {left.name: left.reason for left in prepared.read_left_out(folder)}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_messy_folder_is_prepared_and_every_file_left_out_named(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_pngs(raw, 9, "good")
    frames = [Image.fromarray(speckle(seed)) for seed in (50, 51)]
    colour = Image.fromarray(speckle(52))
    mess = {
        "16-bit.png": png(speckle(53, channels=1)[..., 0].astype(np.uint16) * 200),
        "animated.png": encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "cmyk.jpg": encoded(colour.convert("CMYK"), "JPEG"),
        "copy.png": png(speckle(0)),
        "empty.png": b"",
        "giant.png": encoded(Image.new("L", (17_000, 20)), "PNG"),
        "gif.gif": encoded(colour, "GIF"),
        "notes.txt": b"remember the milk",
        "palette.png": encoded(colour.quantize(16), "PNG"),
        "scan.dcm": dicom(speckle(54, channels=1)[..., 0].astype(np.uint16)),
        "stack.tif": encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "tiny.png": png(speckle(55, 8, 8)),
        "transparent.png": encoded(colour.convert("RGBA"), "PNG"),
        "truncated.png": png(speckle(56))[:900],
    }
    for name, data in mess.items():
        (raw / name).write_bytes(data)
    (raw / "link.png").symlink_to(tmp_path / "gone.png")

    info = prepare("mess", wanted(FolderSource(str(raw))), tmp_path / "mess")
    assert reasons(tmp_path / "mess") == {
        "animated.png": "several_frames",
        "empty.png": "not_an_image",
        "giant.png": "image_too_large",
        "gif.gif": "not_an_image",
        "good_0.png": "duplicate",
        "link.png": "not_a_file",
        "notes.txt": "not_an_image",
        "scan.dcm": "dicom",
        "stack.tif": "several_frames",
        "tiny.png": "image_too_small",
        "truncated.png": "broken_image",
    }
    assert sum(info.counts.values()) + sum(info.left_out.values()) == 9 + len(mess) + 1
    kept = [row.source for split in prepared.SPLITS for row in prepared.load(tmp_path / "mess", split).rows]
    assert {"16-bit.png", "cmyk.jpg", "palette.png", "transparent.png"} <= set(kept)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_too_few_images_fail_with_what_was_left_out_and_keep_the_old_folder(tmp_path: Path) -> None:
    write_pngs(tmp_path / "raw", 6)
    source = FolderSource(str(tmp_path / "raw"))
    prepare("few", wanted(source), tmp_path / "few")
    before = files(tmp_path / "few")
    (tmp_path / "raw" / "image_0.png").write_bytes(b"")
    (tmp_path / "raw" / "image_1.png").write_bytes(b"")
    with pytest.raises(VerisynthError, match=r"4 images.*minimum_images is 5.*2 not_an_image \(image_0.png, image_1"):
        prepare("few", wanted(source), tmp_path / "few")
    assert files(tmp_path / "few") == before
    assert [path.name for path in tmp_path.iterdir()] in (["raw", "few"], ["few", "raw"])


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(VerisynthError, match="0 images can be used"):
        prepare("none", wanted(FolderSource(str(tmp_path / "raw"))), tmp_path / "none")
    with pytest.raises(VerisynthError, match="is no folder; put or link"):
        prepare("none", wanted(FolderSource(str(tmp_path / "nowhere"))), tmp_path / "none")


def test_the_same_input_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    for place in ("one", "other"):
        write_pngs(tmp_path / place / "sick", 12, seed=1)
        write_pngs(tmp_path / place / "well", 12, seed=2)
        (tmp_path / place / "well" / "bad.png").write_bytes(b"")
        source = FolderSource(str(tmp_path / place), labels="folder")
        prepare("twice", wanted(source), tmp_path / f"prepared-{place}" / "twice")
    one, other = (files(tmp_path / f"prepared-{place}" / "twice") for place in ("one", "other"))
    assert one == other
    assert str(tmp_path).encode() not in b"".join(one.values())


def test_content_hash_follows_pixels_labels_and_masks(tmp_path: Path) -> None:
    hashes = set()
    mask = np.zeros((40, 40), dtype=np.uint8)
    write_pngs(tmp_path / "images", 6)
    (tmp_path / "masks").mkdir()
    for step in range(3):
        mask[step, step] = 1
        for number in range(6):
            (tmp_path / "masks" / f"image_{number}.png").write_bytes(png(mask if number == 0 else 1 - mask))
        source = MaskedFolderSource(str(tmp_path / "images"), str(tmp_path / "masks"))
        hashes.add(prepare("masked", wanted(source, size=64), tmp_path / "masked").content_hash)
    hashes.add(prepare("plain", wanted(FolderSource(str(tmp_path / "images")), size=64), tmp_path / "x").content_hash)
    assert len(hashes) == 4


def test_masks_of_other_images_are_told_of(tmp_path: Path) -> None:
    images, masks = discs()
    for shift, doubted in ((0, False), (1, True)):
        folder = tmp_path / str(shift)
        for kind, planes in (("images", images), ("masks", np.roll(masks, shift, axis=0))):
            (folder / kind).mkdir(parents=True)
            for number, plane in enumerate(planes):
                (folder / kind / f"{number}.png").write_bytes(png(plane))
        source = MaskedFolderSource(str(folder / "images"), str(folder / "masks"))
        info = prepare("discs", wanted(source, size=32), folder / "prepared")
        assert bool(info.warnings) is doubted
        assert ("warning: only" in report(info, [])) is doubted
        assert prepared.read_dataset(folder / "prepared") == info


def test_images_are_what_the_service_would_see(tmp_path: Path) -> None:
    write_pngs(tmp_path / "raw", 6, height=50, width=70)
    described = wanted(FolderSource(str(tmp_path / "raw")), channels=1)
    prepare("served", described, tmp_path / "served")
    for split in prepared.SPLITS:
        part = prepared.load(tmp_path / "served", split)
        for image, row in zip(part.images, part.rows, strict=True):
            with Image.open(tmp_path / "raw" / row.source) as original:
                assert np.array_equal(image, fit(np.asarray(original), described.image)[0])


def test_details_keep_to_their_patients_split_and_backgrounds_are_counted(tmp_path: Path) -> None:
    for patient in range(4):
        image = speckle(patient, 96, 96)
        image[:, 48:] = patient
        (tmp_path / f"P{patient}_eye.png").write_bytes(png(image))
    source = FolderSource(str(tmp_path), patient_pattern=r"(P\d)")
    tiles = Tiles(side=48, stride=24, minimum_foreground=0.4)
    info = prepare("eyes", wanted(source, tiles=tiles), tmp_path / "prepared" / "eyes")
    assert sum(info.counts.values()) == 4 * 6
    assert info.left_out == {"little_foreground": 4 * 3}
    assert info.patients == {"train": 2, "validation": 1, "test": 1}
    for split in prepared.SPLITS:
        part = prepared.load(tmp_path / "prepared" / "eyes", split)
        for image, row in zip(part.images, part.rows, strict=True):
            assert row.box is not None
            with Image.open(tmp_path / row.source) as original:
                cut = row.box.cut(np.asarray(original))
            assert np.array_equal(image, fit(cut, wanted(source).image)[0])


@pytest.mark.parametrize("image", ["ihc", "retina"])
def test_one_image_is_split_by_region(image: str, tmp_path: Path) -> None:
    tiles = Tiles(side=64, stride=16) if image == "ihc" else Tiles(side=128, stride=64, minimum_foreground=0.9)
    masks = VesselMasks() if image == "retina" else None
    info = prepare(image, wanted(SkimageSource(image), size=64, tiles=tiles, masks=masks), tmp_path / image)
    assert info.split.startswith("by region")
    painted = {split: np.zeros((1411, 1411), dtype=bool) for split in prepared.SPLITS}
    for split, area in painted.items():
        part = prepared.load(tmp_path / image, split)
        assert (part.masks is None) == (image == "ihc")
        assert part.images.shape[1:] == (64, 64, 3)
        for row in part.rows:
            assert row.box is not None
            row.box.cut(area)[:] = True
    assert not (painted["train"] & painted["validation"]).any()
    assert not (painted["train"] & painted["test"]).any()
    assert not (painted["validation"] & painted["test"]).any()


def test_given_splits_keep_a_shared_image_in_the_held_out_one(tmp_path: Path) -> None:
    arrays = {}
    for number, key in enumerate(("train", "val", "test")):
        arrays[f"{key}_images"] = speckle(number, 28 * 6, 28, 1).reshape(6, 28, 28)
        arrays[f"{key}_labels"] = np.arange(6)[:, None] % 2
    arrays["train_images"][2] = arrays["val_images"][4]
    arrays["val_images"][1] = arrays["test_images"][0]
    np.savez(tmp_path / "breastmnist.npz", **arrays)
    source = MedmnistSource("breastmnist", str(tmp_path))
    info = prepare("breast", wanted(source, channels=1), tmp_path / "breast")
    assert info.counts == {"train": 5, "validation": 5, "test": 6}
    assert info.split == "as the source gives it"
    assert info.labels == ["malignant", "normal, benign"]
    with (tmp_path / "breast" / "left_out.csv").open() as table:
        assert [row["source"] + " " + row["detail"] for row in csv.DictReader(table)] == [
            "validation/1 duplicate of test/0",
            "train/2 duplicate of validation/4",
        ]
    with pytest.raises(VerisynthError, match=r"0 images can be used.*image_too_small"):
        prepare("breast", wanted(source, channels=1, size=64), tmp_path / "large")


def test_dicom_files_are_prepared_by_patient(tmp_path: Path) -> None:
    for number in range(8):
        stored = speckle(number, channels=1)[..., 0].astype(np.uint16) * 16
        (tmp_path / f"{number}.dcm").write_bytes(dicom(stored, patient=f"P{number // 2}"))
    info = prepare("scans", wanted(DicomSource(str(tmp_path)), channels=1), tmp_path / "prepared" / "scans")
    assert sum(info.patients.values()) == 4
    assert sum(info.counts.values()) == 8
    assert not info.left_out


def test_shares_that_leave_a_split_empty_are_refused(tmp_path: Path) -> None:
    image = speckle(0, 400, 400)
    image[64:] = 0
    (tmp_path / "one.png").write_bytes(png(image))
    tiles = Tiles(side=32, stride=32, minimum_foreground=0.5)
    with pytest.raises(VerisynthError, match="0 images are in validation, and at least 1 are needed"):
        prepare("one", wanted(FolderSource(str(tmp_path)), tiles=tiles, split=Split()), tmp_path / "prepared" / "one")


def test_splits_too_small_to_measure_by_are_refused(tmp_path: Path) -> None:
    write_pngs(tmp_path / "raw", 60)
    few = wanted(FolderSource(str(tmp_path / "raw")), minimum_images=50, split=Split(test=0.05))
    with pytest.raises(VerisynthError, match="3 images are in test, and at least 6 are needed"):
        prepare("few", few, tmp_path / "prepared")


def test_levels_that_deep_files_lose_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for number in range(20):
        deep = Image.fromarray(speckle(number, 40, 40, 1)[..., 0].astype(np.uint16) * 16)
        deep.save(tmp_path / "raw" / f"{number}.tiff")
    (warning,) = prepare("deep", wanted(FolderSource(str(tmp_path / "raw"))), tmp_path / "prepared").warnings
    assert "the highest 17" in warning
    assert "scale them to the whole range" in warning


def test_what_a_file_manager_leaves_does_not_make_one_slide_two(tmp_path: Path) -> None:
    (tmp_path / "slide.png").write_bytes(png(speckle(0, 200, 200)))
    (tmp_path / ".DS_Store").write_bytes(b"desktop")
    tiles = Tiles(side=32, stride=8)
    info = prepare("slide", wanted(FolderSource(str(tmp_path)), tiles=tiles), tmp_path / "prepared" / "slide")
    assert info.split.startswith("by region")


def test_what_had_to_be_done_to_images_is_counted(tmp_path: Path) -> None:
    write_pngs(tmp_path / "raw", 6, "colour")
    write_pngs(tmp_path / "raw", 4, "grey", seed=1, channels=1)
    write_pngs(tmp_path / "raw", 2, "small", seed=2, height=20, width=30)
    source = FolderSource(str(tmp_path / "raw"))
    colour = prepare("set", wanted(source), tmp_path / "one")
    assert colour.converted == {"enlarged to 32 pixels": 2, "grey to colour": 4}
    assert prepared.read_dataset(tmp_path / "one") == colour
    assert prepare("set", wanted(source, channels=1), tmp_path / "two").converted["colour to grey"] == 8
