"""Small files that cost pydicom minutes or gigabytes: their elements are walked, and refused before any is parsed."""

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pydicom
import pytest
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from contracts import dicom_elements
from contracts.dicom import patient_of
from contracts.dicom_elements import SHORT_BYTES, TABLE_ITEMS, read_elements
from contracts.errors import ImageError
from contracts.imaging import decode
from contracts.reader import MAXIMUM_READS
from tests.images import dicom

WHOLE = dicom(np.arange(1024, dtype=np.uint16).reshape(32, 32), window=(500, 300))
META, BODY = 132, 144 + struct.unpack("<I", WHOLE[140:144])[0]
PIXEL_DATA = WHOLE.index(b"\xe0\x7f\x10\x00")
EMPTY_ITEM = b"\xfe\xff\x00\xe0\0\0\0\0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def element(keyword: str, representation: bytes, value: bytes, length: int | None = None) -> bytes:
    """An element in Explicit VR Little Endian; `length` None: that of the value."""
    tag = Tag(keyword)
    length = len(value) if length is None else length
    wide = representation in dicom_elements.LONG_FORMS
    return struct.pack("<HH", tag.group, tag.element) + representation + (
        struct.pack("<HI", 0, length) if wide else struct.pack("<H", length)
    ) + value  # fmt: skip


def with_element(added: bytes) -> bytes:
    """The file with one more element, which comes last: of two with one tag the second counts."""
    return WHOLE[:PIXEL_DATA] + added + WHOLE[PIXEL_DATA:]


def changed(change: Callable[[pydicom.Dataset], None]) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(WHOLE))
    change(dataset)
    buffer = io.BytesIO()
    syntax = dataset.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(
        buffer,
        dataset,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
        force_encoding=True,
    )
    return buffer.getvalue()


def refusal(read: Callable[[bytes], object], data: bytes) -> ImageError:
    with pytest.raises(ImageError) as refused:
        read(data)
    return refused.value


ACCESSED = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PixelData"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation", "RescaleSlope", "WindowCenter", "WindowWidth"),
)


@pytest.mark.parametrize("keyword", ACCESSED)
@pytest.mark.parametrize("length", [None, 0xFFFFFFFF], ids=["explicit", "undefined"])
def test_a_sequence_where_none_belongs_is_refused(keyword: str, length: int | None) -> None:
    if (keyword, length) == ("PixelData", 0xFFFFFFFF):
        pytest.skip("that is how compressed pixels come")
    bomb = with_element(element(keyword, b"SQ", EMPTY_ITEM * 20_000 + SEQUENCE_END, length))
    if keyword == "PixelData":
        bomb = bomb[:PIXEL_DATA] + element(keyword, b"SQ", EMPTY_ITEM * 20_000)
    assert "sequence" in str(refusal(decode, bomb))


def test_a_sequence_as_the_patient_or_the_transfer_syntax_is_refused() -> None:
    items = EMPTY_ITEM * 20_000
    assert "sequence" in str(refusal(patient_of, with_element(element("PatientID", b"SQ", items))))
    syntax = WHOLE[:META] + element("TransferSyntaxUID", b"SQ", items) + WHOLE[META:]
    assert "sequence" in str(refusal(decode, syntax))


def test_a_long_value_where_a_short_one_belongs_is_refused() -> None:
    many = element("WindowCenter", b"DS", b"1\\" * SHORT_BYTES)
    assert "has 2048 bytes" in str(refusal(decode, with_element(many)))
    names = element("SpecificCharacterSet", b"CS", b"\\" * 2 * SHORT_BYTES)
    assert "has 2048 bytes" in str(refusal(patient_of, with_element(names)))


@pytest.mark.parametrize("length", [None, 0xFFFFFFFF], ids=["explicit", "undefined"])
def test_a_table_of_many_items_is_refused(length: int | None) -> None:
    table = element("ModalityLUTSequence", b"SQ", EMPTY_ITEM * (TABLE_ITEMS + 1) + SEQUENCE_END, length)
    assert f"{TABLE_ITEMS + 1} items" in str(refusal(decode, with_element(table)))


def test_what_is_not_wanted_is_never_parsed() -> None:
    items = EMPTY_ITEM * 20_000
    nested = element(
        "ReferencedImageSequence", b"SQ", b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + names() + ITEM_END, UNDEFINED
    )
    for strange in (element("ReferencedStudySequence", b"SQ", items), nested + SEQUENCE_END):
        found = read_elements(with_element(strange), {Tag("Rows"): 100}.get)
        assert [found.Rows, len(found)] == [32, 1]
        assert np.array_equal(decode(with_element(strange)).pixels, decode(WHOLE).pixels)


UNDEFINED = 0xFFFFFFFF
ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"


def names() -> bytes:
    return element("SpecificCharacterSet", b"CS", b"\\" * 60_000)


def test_sequences_without_end_are_refused() -> None:
    endless = element("ReferencedImageSequence", b"SQ", EMPTY_ITEM, UNDEFINED)
    assert "ends within a sequence" in str(refusal(decode, WHOLE[:PIXEL_DATA] + endless))
    many = element("ReferencedImageSequence", b"SQ", EMPTY_ITEM * 2 * MAXIMUM_READS, UNDEFINED)
    assert "more parts" in str(refusal(decode, WHOLE[:PIXEL_DATA] + many))


def test_a_deflated_file_is_refused_and_not_inflated() -> None:
    def deflate(dataset: pydicom.Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    start = changed(deflate)[: 144 + struct.unpack("<I", changed(deflate)[140:144])[0]]
    compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = start + compressor.compress(WHOLE[BODY:] + EMPTY_ITEM * 2**22) + compressor.flush()
    assert len(bomb) < 2**20
    tracemalloc.start()
    try:
        for read in (decode, patient_of):
            refused = refusal(read, bomb)
            assert refused.code == "unsupported_pixels"
            assert "deflated" in str(refused)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_encodings_are_walked_too(syntax: pydicom.uid.UID) -> None:
    def encode(dataset: pydicom.Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax
        item = pydicom.Dataset()
        item.is_undefined_length_sequence_item = True
        item.ReferencedSOPInstanceUID = "1.2.3"
        dataset.ReferencedImageSequence = [item]
        dataset["ReferencedImageSequence"].is_undefined_length = True
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()

    data = changed(encode)
    assert np.array_equal(decode(data).pixels, decode(WHOLE).pixels)
    assert patient_of(data) == "P1"


def test_a_table_is_still_applied() -> None:
    def add_table(dataset: pydicom.Dataset) -> None:
        table = pydicom.Dataset()
        table.LUTDescriptor, table.ModalityLUTType = [1024, 0, 16], "US"
        table.LUTData = np.arange(1023, -1, -1, dtype="<u2").tobytes()
        dataset.ModalityLUTSequence = [table]
        del dataset.WindowCenter, dataset.WindowWidth

    plain = changed(lambda dataset: dataset.__delattr__("WindowWidth"))
    assert np.abs(decode(changed(add_table)).pixels.astype(int) + decode(plain).pixels - 255).max() <= 1
