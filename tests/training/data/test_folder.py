from pathlib import Path

import pytest

from contracts.errors import ImageError, VerisynthError
from tests.images import dicom, png, speckle, write_pngs
from training.data.folder import collect
from training.data.params import FolderSource


def left_out(source: FolderSource) -> dict[str, str]:
    return {left.name: left.reason for left in collect(source).left_out}


def test_every_file_is_a_patient_unless_told_otherwise(tmp_path: Path) -> None:
    write_pngs(tmp_path / "a", 2)
    items = collect(FolderSource(str(tmp_path))).items
    assert [(item.name, item.patient, item.label) for item in items] == [
        ("a/image_0.png", "a/image_0.png", None),
        ("a/image_1.png", "a/image_1.png", None),
    ]
    assert items[0].read().image.shape == (40, 40, 3)


def test_labels_are_the_first_folder(tmp_path: Path) -> None:
    write_pngs(tmp_path / "sick" / "ward", 1)
    write_pngs(tmp_path, 1, "stray")
    source = FolderSource(str(tmp_path), labels="folder")
    assert [item.label for item in collect(source).items] == ["sick"]
    assert left_out(source) == {"stray_0.png": "no_label"}


def test_patients_are_the_patterns_first_group(tmp_path: Path) -> None:
    write_pngs(tmp_path, 1, "P07_left")
    write_pngs(tmp_path, 1, "P07_right")
    write_pngs(tmp_path, 1, "unknown")
    source = FolderSource(str(tmp_path), patient_pattern=r"(P\d+)_")
    assert {item.patient for item in collect(source).items} == {"P07"}
    assert left_out(source) == {"unknown_0.png": "no_patient"}


def table(folder: Path, text: str) -> FolderSource:
    (folder / "table.csv").write_text(text, encoding="utf-8")
    return FolderSource(
        str(folder),
        labels="metadata",
        metadata="table.csv",
        metadata_file_column="file",
        metadata_patient_column="patient",
        metadata_label_column="finding",
    )


def test_a_row_that_may_mean_files_of_two_folders_means_none(tmp_path: Path) -> None:
    write_pngs(tmp_path / "left", 2)
    write_pngs(tmp_path / "right", 1)
    source = table(tmp_path, "file,patient,finding\nimage_0,A,well\nimage_1,B,ill\nright/image_0.png,C,ill\n")
    assert [(item.name, item.patient) for item in collect(source).items] == [
        ("left/image_1.png", "B"),
        ("right/image_0.png", "C"),
    ]
    assert left_out(source) == {"left/image_0.png": "ambiguous_in_metadata"}


def test_patients_and_labels_come_from_the_table(tmp_path: Path) -> None:
    write_pngs(tmp_path / "images", 5)
    source = table(
        tmp_path,
        "\ufefffile,patient,finding\nimage_0,A,well\nimage_1.png,A,ill\nimages/image_2.png,B,ill\nimage_3,,ill\n",
    )
    collection = collect(source)
    assert [(item.patient, item.label) for item in collection.items] == [("A", "well"), ("A", "ill"), ("B", "ill")]
    assert left_out(source) == {"images/image_3.png": "no_patient", "images/image_4.png": "not_in_metadata"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,patient,finding\na,b,c\n", "no column 'file'; columns: name, patient, finding"),
        ("file,patient,finding\na,A,c\na,B,c\n", "line 3: 'a' stands there twice"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(VerisynthError, match=message):
        collect(table(tmp_path, text))


def test_a_table_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    source = table(tmp_path, "")
    (tmp_path / "table.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VerisynthError, match="cannot be read"):
        collect(source)
    (tmp_path / "table.csv").unlink()
    with pytest.raises(VerisynthError, match=r"table\.csv cannot be read"):
        collect(source)


def test_dicom_is_sent_to_its_own_source(tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(dicom(speckle(0, 20, 20, 1)[..., 0].astype("uint16")))
    (tmp_path / "text.png").write_bytes(b"no image")
    (tmp_path / "good.png").write_bytes(png(speckle(0)))
    good, scan, text = collect(FolderSource(str(tmp_path))).items
    assert good.read().mask is None
    for item, code in ((scan, "dicom"), (text, "not_an_image")):
        with pytest.raises(ImageError) as refused:
            item.read()
        assert refused.value.code == code
