import io
import struct
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import config

from contracts.claims import IMAGE, Claim, ClaimError, Origin
from contracts.imaging import decode, encode_png
from contracts.marks import DIGITAL_SOURCE_TYPE, LARGEST_PACKET_BYTES, NAMESPACE, mark_png, read_mark
from serving.dicom import dicom_file
from serving.provenance.claims import ClaimKeys, make_signing_key
from tests.images import encoded, speckle

ORIGIN = Origin(model="waves", version="0123456789ab", seed=7, truncation=1.0, label='<"größer" & ]]>', balance=None)
PIXELS = speckle(0)
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"


@pytest.fixture(scope="module")
def claim(tmp_path_factory: pytest.TempPathFactory) -> Claim:
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    make_signing_key(path)
    return ClaimKeys.load(path, None).claim(IMAGE, ORIGIN, 3, PIXELS)


@pytest.fixture(scope="module")
def marked(claim: Claim) -> bytes:
    return mark_png(encode_png(PIXELS), claim)


def packet(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return bytes(image.info["xmp"])


def png_with(xmp: bytes) -> bytes:
    """A PNG with any bytes as its XMP packet."""
    plain = encode_png(PIXELS)
    return plain[:33] + chunk(b"XML:com.adobe.xmp\0\0\0\0\0" + xmp) + plain[33:]


def chunk(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + b"iTXt" + text + struct.pack(">I", zlib.crc32(b"iTXt" + text))


# --- PNG, JPEG, TIFF, WebP ----------------------------------------------------------------------------


def test_a_marked_png_is_a_png_with_the_same_pixels(marked: bytes) -> None:
    with Image.open(io.BytesIO(marked)) as image:
        image.verify()
    with Image.open(io.BytesIO(marked)) as image:
        assert np.array_equal(np.asarray(image), PIXELS)
    assert np.array_equal(decode(marked).pixels, PIXELS)
    position, kinds = 8, []
    while position < len(marked):
        (length,) = struct.unpack_from(">I", marked, position)
        body = marked[position + 4 : position + 8 + length]
        assert struct.unpack_from(">I", marked, position + 8 + length) == (zlib.crc32(body),)
        kinds.append(body[:4])
        position += 12 + length
    assert kinds == [b"IHDR", b"iTXt", b"IDAT", b"IEND"]


def test_other_software_finds_the_digital_source_type(marked: bytes, claim: Claim) -> None:
    tree = ElementTree.fromstring(packet(marked))
    assert [element.text for element in tree.iter(IPTC)] == [DIGITAL_SOURCE_TYPE]
    assert [element.text for element in tree.iter(f"{{{NAMESPACE}}}claim")] == [claim.text()]


def test_a_claim_is_read_where_other_software_puts_it(marked: bytes, claim: Claim) -> None:
    xmp = packet(marked)
    image = Image.fromarray(PIXELS)
    plain = encode_png(PIXELS)
    behind = plain[:-12] + chunk(b"XML:com.adobe.xmp\0\0\0\0\0" + xmp) + plain[-12:]
    text = claim.text().replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    attribute = f"<r xmlns:o='{NAMESPACE}' o:claim=\"{text}\"/>".encode()
    for data in (
        marked,
        behind,
        encoded(image, "JPEG", xmp=xmp),
        encoded(image, "TIFF", tiffinfo={700: xmp}),
        encoded(image, "WEBP", xmp=xmp),
        png_with(attribute),
        png_with(xmp + b"\0"),
    ):
        assert read_mark(data) == claim


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_without_a_claim_there_is_no_mark(form: str) -> None:
    assert read_mark(encoded(Image.fromarray(PIXELS), form)) is None


def test_packets_of_others_are_not_even_parsed() -> None:
    for xmp in (b"", b"<not even xml", b"<!DOCTYPE a><a/>", b"\0" * 2 * LARGEST_PACKET_BYTES):
        assert read_mark(png_with(xmp)) is None


CLAIM = f"<a xmlns:o='{NAMESPACE}'>%s</a>"


@pytest.mark.parametrize(
    ("xmp", "words"),
    [
        (CLAIM % "", "holds 0 claims"),
        (CLAIM % "<o:claim>{}</o:claim><o:claim>{}</o:claim>", "holds 2 claims"),
        (CLAIM % "<o:claim>{}</o:claim><b o:claim='{}'/>", "holds 2 claims"),
        (CLAIM % "<o:claim>{<b/>}</o:claim>", "holds elements"),
        (CLAIM % "<o:claim>{}</o:claim>", "has the fields"),
        (CLAIM % "<o:claim>", "not well-formed"),
        (CLAIM % "<o:claim>&unknown;</o:claim>", "not well-formed"),
        ("<!DOCTYPE a>" + CLAIM % "<o:claim>{}</o:claim>", "document type"),
        ("<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>" + CLAIM % "<o:claim>&b;</o:claim>", "document type"),
        (CLAIM % ("<o:claim>{}</o:claim>" + " " * LARGEST_PACKET_BYTES), "at most 65536 are read"),
    ],
)
def test_a_packet_of_ours_that_is_not_whole_is_refused(xmp: str, words: str) -> None:
    with pytest.raises(ClaimError, match=words):
        read_mark(png_with(xmp.encode()))


def test_nothing_expands() -> None:
    laughs = "".join(f"<!ENTITY e{level} '{f'&e{level - 1};' * 10}'>" for level in range(1, 12))
    bomb = f"<!DOCTYPE a [<!ENTITY e0 'ha'>{laughs}]>" + CLAIM % "<o:claim>&e11;</o:claim>"
    with pytest.raises(ClaimError, match="document type"):
        read_mark(png_with(bomb.encode()))


@given(data=st.data())
def test_a_mutated_packet_is_refused_or_read(marked: bytes, claim: Claim, data: st.DataObject) -> None:
    xmp = bytearray(packet(marked))
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(xmp)))
        xmp[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    form = data.draw(st.sampled_from(["PNG", "JPEG", "TIFF"]))
    image = Image.fromarray(PIXELS)
    options: dict[str, Any] = {"JPEG": {"xmp": bytes(xmp)}, "TIFF": {"tiffinfo": {700: bytes(xmp)}}}
    file = png_with(bytes(xmp)) if form == "PNG" else encoded(image, form, **options[form])
    try:
        found = read_mark(file)
    except ClaimError:
        return
    assert found is None or Claim.parse(found.text()) == found


# --- DICOM --------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_a_marked_dicom_file_conforms(channels: int, claim: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.RAISE)
    pixels = speckle(1, channels=channels)
    data = dicom_file(pixels, claim)
    dataset = pydicom.dcmread(io.BytesIO(data))
    for element in dataset.iterall():
        assert element.value is not None
    assert dataset[0x0011, 0x0010].value == "VERISYNTH"
    assert dataset[0x0011, 0x1001].VR == "UT"
    assert dataset[0x0011, 0x1001].value == claim.text()
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert dataset.DerivationDescription == 'Generated: waves 0123456789ab 7 1.0 <"größer" & ]]> None 3'
    assert np.array_equal(decode(data).pixels, pixels)
    assert read_mark(data) == claim


def test_a_dicom_mark_outlives_other_software(claim: Claim, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom_file(PIXELS, claim)))
    moved = pydicom.dcmread(io.BytesIO(dicom_file(PIXELS, claim)))
    # Implicit value representations: software that does not know the block reads it as unknown bytes.
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    dataset.save_as(tmp_path / "implicit.dcm", implicit_vr=True, little_endian=True)
    # Another block has taken the first place.
    del moved[0x0011, 0x0010], moved[0x0011, 0x1001]
    moved.private_block(0x0011, "SOMEBODY ELSE", create=True).add_new(1, "LO", "theirs")
    moved.private_block(0x0011, "VERISYNTH", create=True).add_new(1, "UT", claim.text())
    moved.save_as(tmp_path / "moved.dcm")
    for name in ("implicit", "moved"):
        assert read_mark((tmp_path / f"{name}.dcm").read_bytes()) == claim


def test_a_dicom_file_without_our_block_has_no_mark(claim: Claim) -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom_file(PIXELS, claim)))
    del dataset[0x0011, 0x0010], dataset[0x0011, 0x1001]
    dataset.ImageComments = "VERISYNTH"
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    assert read_mark(buffer.getvalue()) is None


@pytest.mark.parametrize(
    ("representation", "value"),
    [("UT", "no claim"), ("UT", "{" * 100_000), ("OB", b"\xff\xfe"), ("US", 3), ("UT", "")],
)
def test_a_dicom_block_of_another_form_is_refused(representation: str, value: object, claim: Claim) -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom_file(PIXELS, claim)))
    dataset[0x0011, 0x1001] = pydicom.DataElement((0x0011, 0x1001), representation, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    with pytest.raises(ClaimError):
        read_mark(buffer.getvalue())


@pytest.mark.parametrize("place", [b"\x11\x00\x10\x00LO", b"\x11\x00\x01\x10UT"], ids=["creator", "claim"])
def test_a_sequence_in_the_place_of_a_dicom_claim_is_refused(place: bytes, claim: Claim) -> None:
    data = dicom_file(PIXELS, claim)
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 20_000
    start = data.index(place)
    bomb = data[:start] + place[:4] + b"SQ\0\0" + struct.pack("<I", len(items)) + items + data[start:]
    # Of two elements with one tag the second counts.
    assert read_mark(data) == claim
    with pytest.raises(ClaimError, match="private block"):
        read_mark(bomb)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(data=st.data())
def test_a_mutated_dicom_file_is_refused_or_read(claim: Claim, data: st.DataObject) -> None:
    file = bytearray(dicom_file(PIXELS, claim))
    header = file.index(b"VERISYNTH") + 700
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(132, header))] = data.draw(st.integers(0, 255))
    try:
        found = read_mark(bytes(file))
    except ClaimError:
        return
    assert found is None or Claim.parse(found.text()) == found
