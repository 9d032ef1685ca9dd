import gc
import hashlib
import io
import json
import warnings
import zipfile
from dataclasses import replace
from typing import Any

import numpy as np
import pydicom
import pytest

from contracts.claims import Origin
from contracts.imaging import decode
from contracts.limits import MAXIMUM_COUNT, MAXIMUM_START
from serving.formats import FORMATS, Signing
from serving.provenance.claims import ClaimKeys
from serving.runtime import Samples
from tests.releases import real_images

ORIGIN = Origin(model="waves", version="0123456789ab", seed=7, truncation=0.5, label=None, balance="training")
SIGNING = Signing(ClaimKeys())


@pytest.fixture(params=[1, 3])
def samples(request: pytest.FixtureRequest) -> Samples:
    images = real_images(5, channels=request.param)
    return Samples(images, masks=images[..., 0] // 128 * 255, labels=np.arange(5))


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_samples_give_the_same_bytes(name: str, samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FORMATS[name].write(samples, ORIGIN, SIGNING)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    assert FORMATS[name].write(samples, ORIGIN, SIGNING) == first


def test_npz_holds_the_arrays(samples: Samples) -> None:
    with np.load(io.BytesIO(FORMATS["npz"].write(samples, ORIGIN, SIGNING))) as arrays:
        assert sorted(arrays) == ["images", "labels", "masks", "provenance"]
        assert np.array_equal(arrays["images"], samples.images)
        assert np.array_equal(arrays["masks"], samples.masks)
        assert arrays["labels"].dtype == np.int64


@pytest.mark.parametrize(("name", "extension"), [("zip", "png"), ("dicom", "dcm")])
def test_archives_hold_the_pixels_and_their_origin(name: str, extension: str, samples: Samples) -> None:
    with zipfile.ZipFile(io.BytesIO(FORMATS[name].write(samples, ORIGIN, SIGNING))) as archive:
        provenance = json.loads(archive.read("manifest.json"))
        for index, image in enumerate(samples.images):
            assert np.array_equal(decode(archive.read(f"{index:06d}.{extension}")).pixels, image)
        for entry in provenance["files"]:
            assert hashlib.sha256(archive.read(entry["file"])).hexdigest() == entry["sha256"]
    assert provenance["synthetic"] is True
    assert (provenance["model"], provenance["version"], provenance["seed"]) == ("waves", "0123456789ab", 7)
    assert (provenance["truncation"], provenance["label"], provenance["balance"]) == (0.5, None, "training")


def test_masks_lie_beside_their_images(samples: Samples) -> None:
    assert samples.masks is not None
    with zipfile.ZipFile(io.BytesIO(FORMATS["zip"].write(samples, ORIGIN, SIGNING))) as archive:
        assert np.array_equal(decode(archive.read("000003-mask.png")).pixels[..., 0], samples.masks[3])


def test_dicom_cannot_be_taken_for_a_patients(samples: Samples) -> None:
    def datasets(origin: Origin) -> list[pydicom.Dataset]:
        with zipfile.ZipFile(io.BytesIO(FORMATS["dicom"].write(samples, origin, SIGNING))) as archive:
            names = [name for name in archive.namelist() if name.endswith(".dcm")]
            return [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in names]

    files = datasets(ORIGIN)
    for file in files:
        assert file[0x0008, 0x001C].value == "YES"
        assert file.SOPClassUID.name == "Secondary Capture Image Storage"
        assert str(file.PatientName).startswith("SYNTHETIC")
        assert file.StudyDate == ""
        assert file.SOPInstanceUID.is_valid
    instances = {file.SOPInstanceUID for file in files}
    assert len(instances) == 5
    assert {file.StudyInstanceUID for file in files} == {files[0].StudyInstanceUID}
    # Other pixels bear other identifiers.
    changed: list[dict[str, Any]] = [
        {"truncation": 1.0},
        {"label": "benign", "balance": None},
        {"balance": "equal"},
    ]
    for changes in changed:
        other = replace(ORIGIN, **changes)
        assert instances.isdisjoint(file.SOPInstanceUID for file in datasets(other))


@pytest.mark.parametrize("name", ["zip", "dicom"])
def test_parts_of_a_sequence_hold_the_same_files_as_the_whole(name: str, samples: Samples) -> None:
    def files(start: int) -> dict[str, bytes]:
        assert samples.masks is not None
        part = Samples(samples.images[start:], samples.masks[start:], start=start)
        with zipfile.ZipFile(io.BytesIO(FORMATS[name].write(part, ORIGIN, SIGNING))) as archive:
            return {entry: archive.read(entry) for entry in archive.namelist() if entry != "manifest.json"}

    whole, part = files(0), files(3)
    assert sorted(part) == sorted(entry for entry in whole if entry >= "000003")
    assert all(whole[entry] == data for entry, data in part.items())


def test_the_last_index_that_can_be_asked_for_is_written(samples: Samples) -> None:
    last = replace(samples, start=MAXIMUM_START)
    for name in ("zip", "dicom"):
        with zipfile.ZipFile(io.BytesIO(FORMATS[name].write(last, ORIGIN, SIGNING))) as archive:
            provenance = json.loads(archive.read("manifest.json"))
        assert provenance["files"][-1]["index"] == MAXIMUM_START + len(samples.images) - 1
    assert MAXIMUM_START + MAXIMUM_COUNT < 2**31


def test_grid_shows_every_image(samples: Samples) -> None:
    sheet = decode(FORMATS["png"].write(samples, ORIGIN, SIGNING)).pixels
    assert sheet.shape == (2 * 34 + 2, 3 * 34 + 2, samples.images.shape[3])
    assert np.array_equal(sheet[36:68, 36:68], samples.images[4])


# --- part by part -------------------------------------------------------------------------------


def pieces(name: str, samples: Samples, lengths: list[int]) -> list[bytes]:
    """What a writer gives for each part, and then at the end."""
    found, first = [], 0
    with FORMATS[name](ORIGIN, SIGNING, samples.start, len(samples.images)) as writer:
        for length in lengths:
            rows = slice(first, first + length)
            assert samples.masks is not None
            assert samples.labels is not None
            part = Samples(samples.images[rows], samples.masks[rows], samples.labels[rows], samples.start + first)
            found.append(writer.add(writer.prepare(part)))
            first += length
        return [*found, *writer.finish()]


@pytest.mark.parametrize("lengths", [[5], [1, 1, 1, 1, 1], [2, 3]])
@pytest.mark.parametrize("name", FORMATS)
def test_the_parts_do_not_show(name: str, samples: Samples, lengths: list[int]) -> None:
    assert b"".join(pieces(name, samples, lengths)) == FORMATS[name].write(samples, ORIGIN, SIGNING)


@pytest.mark.parametrize("name", ["npz", "zip", "dicom"])
def test_images_go_out_with_their_part(name: str, samples: Samples) -> None:
    first, second, *_ = pieces(name, samples, [2, 3])
    image_bytes = samples.images[0].nbytes if name != "zip" else 500
    assert 2 * image_bytes < len(first) < len(second)


def test_archives_of_files_are_those_of_a_file_that_can_be_rewritten(samples: Samples) -> None:
    """No data descriptors, which some readers of ZIP cannot do without a table of contents."""
    data = FORMATS["zip"].write(samples, ORIGIN, SIGNING)
    rewritten = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(rewritten, "w") as again:
        for entry in archive.infolist():
            assert entry.flag_bits & 0x8 == 0
            again.writestr(zipfile.ZipInfo(entry.filename), archive.read(entry))
    assert rewritten.getvalue() == data


def test_masks_wait_on_disk(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = FORMATS["npz"].write(samples, ORIGIN, SIGNING)
    monkeypatch.setattr("serving.formats.SPOOL_BYTES", 1024)
    monkeypatch.setattr("serving.formats.PIECE_BYTES", 1000)
    in_pieces = pieces("npz", samples, [2, 3])
    assert b"".join(in_pieces) == whole
    assert max(len(piece) for piece in in_pieces[2:-1]) < 2000


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FORMATS)
def test_a_writer_that_is_given_up_lets_go(name: str, samples: Samples) -> None:
    with warnings.catch_warnings(action="ignore"):  # of what other tests left open
        gc.collect()
    with FORMATS[name](ORIGIN, SIGNING, 0, 10) as writer:
        writer.add(writer.prepare(samples))
    gc.collect()
