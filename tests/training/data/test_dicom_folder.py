from pathlib import Path

import numpy as np

from tests.images import dicom, png, speckle
from training.data.dicom_folder import collect
from training.data.params import DicomSource


def test_patients_are_numbered_and_their_identifiers_written_nowhere(tmp_path: Path) -> None:
    ramp = np.linspace(0, 4095, 400).round().astype(np.uint16).reshape(20, 20)
    for name, patient in (("c", "Doe"), ("a", "Roe"), ("b", "Doe"), ("d", "")):
        (tmp_path / f"{name}.dcm").write_bytes(dicom(ramp, patient=patient))
    (tmp_path / "image.png").write_bytes(png(speckle(0)))
    (tmp_path / "broken.dcm").write_bytes(dicom(ramp)[:200])
    collection = collect(DicomSource(str(tmp_path), range="full"))
    assert [(item.name, item.patient) for item in collection.items] == [
        ("a.dcm", "patient 2"),
        ("b.dcm", "patient 1"),
        ("c.dcm", "patient 1"),
    ]
    assert np.array_equal(collection.items[0].read().image[..., 0], np.rint(ramp / 4095 * 255))
    assert {left.name for left in collection.left_out} == {"broken.dcm", "d.dcm", "image.png"}
    assert {left.name: left.reason for left in collection.left_out}["d.dcm"] == "no_patient"
