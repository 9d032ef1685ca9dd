"""DICOM files of our own writing, held against pydicom's."""

import io
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from contracts.claims import IMAGE, Claim, Origin
from contracts.limits import MAXIMUM_SEED
from serving.dicom import FIRST_OF_DATASET, dicom_file, elements
from tests.images import speckle

ORIGIN = Origin(model="waves", version="0123456789ab", seed=7, truncation=0.5, label=None, balance="training")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
origins = st.builds(
    Origin,
    model=texts,
    version=texts,
    seed=st.integers(0, MAXIMUM_SEED),
    truncation=st.floats(0, 1),
    label=st.none() | texts,
    balance=st.none() | st.just("training"),
    mask_sha256=st.none() | st.just("0" * 64),
)
sides = st.integers(1, 9)


def written_by_pydicom(image: np.ndarray, claim: Claim) -> bytes:
    """The same elements; the head is pydicom's own but for the transfer syntax."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for tag, representation, value in elements(image, claim):
        if tag >= FIRST_OF_DATASET:
            dataset.add_new(tag, representation, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(origin=origins, index=st.integers(0, 2**32), shape=st.tuples(sides, sides, st.sampled_from([1, 3])))
def test_the_bytes_are_those_that_pydicom_writes(origin: Origin, index: int, shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    image = speckle(index, height, width, channels)
    claim = Claim.unsigned(IMAGE, origin, index, image)
    assert dicom_file(image, claim) == written_by_pydicom(image, claim)


@pytest.mark.parametrize(
    ("channels", "grey_or_colour"),
    [
        (1, {"PhotometricInterpretation": "MONOCHROME2", "WindowCenter": 127.5, "WindowWidth": 255}),
        (3, {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}),
    ],
)
def test_pydicom_finds_the_fields(channels: int, grey_or_colour: dict[str, Any]) -> None:
    image = speckle(0, 17, 15, channels)
    claim = Claim.unsigned(IMAGE, ORIGIN, 3, image)
    dataset = pydicom.dcmread(io.BytesIO(dicom_file(image, claim)))
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert dataset.SOPInstanceUID.is_valid
    assert np.array_equal(dataset.pixel_array.reshape(image.shape), image)
    expected = grey_or_colour | {
        "ImageType": ["DERIVED", "SECONDARY"],
        "SyntheticData": "YES",
        "PatientName": "SYNTHETIC^NO PATIENT",
        "PatientIdentityRemoved": "YES",
        "InstanceNumber": 4,
        "SeriesNumber": 1,
        "ManufacturerModelName": "waves",
        "SoftwareVersions": "0123456789ab",
        "DerivationDescription": "Generated: waves 0123456789ab 7 0.5 None training 3",
        "StudyDate": "",
        "Rows": 17,
        "Columns": 15,
    }
    assert {keyword: dataset[keyword].value for keyword in expected} == expected
    assert dataset.private_block(0x0011, "VERISYNTH")[1].value == claim.text()
