"""Where a claim lies in a file: an XMP packet in a PNG, a private block in a DICOM file.

The packet carries IPTC's digital source type too, which other software understands: an image made by a trained model.
What is read comes from strangers: no more than 64 KiB of it, nothing of XML that could expand, and every packet that
bears our namespace without holding exactly one claim is refused, not passed over.
"""

import struct
import zlib
from xml.parsers import expat
from xml.sax.saxutils import escape

from contracts.claims import Claim, ClaimError
from contracts.dicom import is_dicom
from contracts.dicom_elements import SHORT_BYTES, read_elements
from contracts.header import open_image
from contracts.imaging import FORMATS

LARGEST_PACKET_BYTES = 64 * 1024
PNG_HEADER_BYTES = 8 + 25
XMP_KEYWORD = b"XML:com.adobe.xmp"
NAMESPACE = "urn:verisynth:provenance#"
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
PACKET = f"""\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:verisynth="{NAMESPACE}">
   <Iptc4xmpExt:DigitalSourceType>{DIGITAL_SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>
   <verisynth:claim>%s</verisynth:claim>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""
# An odd group is private; the block within it is found by its creator. In a file of our own it is the first.
PRIVATE_GROUP, PRIVATE_CREATOR, CLAIM_ELEMENT = 0x0011, "VERISYNTH", 0x01
FIRST_BLOCK = 0x10
LAST_CREATOR = 0x00FF
CHARACTER_SET = 0x00080005


def mark_png(data: bytes, claim: Claim) -> bytes:
    """PNG bytes with the claim in an XMP packet, an `iTXt` chunk right after the header; pixels stay as they are."""
    text = XMP_KEYWORD + b"\0\0\0\0\0" + (PACKET % escape(claim.text())).encode()
    checksum = zlib.crc32(text, zlib.crc32(b"iTXt"))
    chunk = struct.pack(">I", len(text)) + b"iTXt" + text + struct.pack(">I", checksum)
    return data[:PNG_HEADER_BYTES] + chunk + data[PNG_HEADER_BYTES:]


def dicom_claim(claim: Claim) -> list[tuple[int, str, str]]:
    """The private block for a data set in UTF-8 (`ISO_IR 192`): tags, value representations and values."""
    return [
        (PRIVATE_GROUP << 16 | FIRST_BLOCK, "LO", PRIVATE_CREATOR),
        (PRIVATE_GROUP << 16 | FIRST_BLOCK << 8 | CLAIM_ELEMENT, "UT", claim.text()),
    ]


def read_mark(data: bytes) -> Claim | None:
    """The claim in the bytes of a file that `contracts.imaging.decode` takes; None where no claim is made.

    Raises:
        ClaimError: where a claim is made that cannot be read.
    """
    text = _dicom_text(data) if is_dicom(data) else _packet_text(_packet(data))
    return None if text is None else Claim.parse(text)


def _packet(data: bytes) -> bytes:
    """The XMP packet of a PNG, JPEG, TIFF or WebP file; empty where there is none."""
    try:
        with open_image(data, FORMATS) as image:
            packet = image.info.get("xmp")
            if packet is None and image.format == "PNG" and XMP_KEYWORD in data:
                # A packet behind the pixels is met only on the way through them.
                image.load()
                packet = image.info.get("xmp")
    except Exception as error:  # Pillow raises many kinds on broken files
        raise ClaimError("the file's metadata cannot be read") from error
    return packet if isinstance(packet, bytes) else b""


def _packet_text(packet: bytes) -> str | None:
    if NAMESPACE.encode() not in packet:
        # Somebody else's packet is no business of ours.
        return None
    if len(packet) > LARGEST_PACKET_BYTES:
        raise ClaimError(f"the XMP packet holds {len(packet)} bytes; at most {LARGEST_PACKET_BYTES} are read")
    reader = _PacketReader()
    try:
        reader.parser.Parse(packet.strip(b"\0"), True)
    except (expat.ExpatError, ValueError) as error:
        raise ClaimError(f"the XMP packet is not well-formed: {error}") from error
    if len(reader.claims) != 1:
        raise ClaimError(f"the XMP packet holds {len(reader.claims)} claims; one is read")
    return reader.claims[0]


class _PacketReader:
    """Collects claims from an XMP packet, as elements or, as other software may rewrite them, as attributes."""

    def __init__(self) -> None:
        self.claims: list[str] = []
        self._pieces: list[str] | None = None
        self.parser = expat.ParserCreate(encoding="UTF-8", namespace_separator=" ")
        self.parser.StartDoctypeDeclHandler = self._refuse_doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text

    def _refuse_doctype(self, *_: object) -> None:
        # Without a document type there are no entities, and nothing can expand.
        raise ClaimError("the XMP packet declares a document type")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._pieces is not None:
            raise ClaimError("the claim in the XMP packet holds elements")
        if name == f"{NAMESPACE} claim":
            self._pieces = []
        self.claims += [value for name, value in attributes.items() if name == f"{NAMESPACE} claim"]

    def _end(self, _: str) -> None:
        if self._pieces is not None:
            self.claims.append("".join(self._pieces))
            self._pieces = None

    def _text(self, text: str) -> None:
        if self._pieces is not None:
            self._pieces.append(text)


def _claim_limit(tag: int) -> int | None:
    """Our block may be any of the group's: their creators and what may be the claim are read."""
    group, element = tag >> 16, tag & 0xFFFF
    if group != PRIVATE_GROUP:
        return SHORT_BYTES if tag == CHARACTER_SET else None
    if element <= LAST_CREATOR:
        return SHORT_BYTES
    return LARGEST_PACKET_BYTES if element & 0xFF == CLAIM_ELEMENT else None


def _dicom_text(data: bytes) -> str | None:
    if PRIVATE_CREATOR.encode() not in data:
        return None
    try:
        dataset = read_elements(data, _claim_limit)
        try:
            element = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)[CLAIM_ELEMENT]
        except KeyError:
            return None
        value = element.value
        # Software that does not know our block keeps its bytes alone.
        text = value.decode().rstrip("\0 ") if isinstance(value, bytes) else value
    except Exception as error:  # pydicom raises many kinds on broken files
        raise ClaimError("the private block of the DICOM file cannot be read") from error
    if not isinstance(text, str) or len(text) > LARGEST_PACKET_BYTES:
        raise ClaimError("the private block of the DICOM file holds no claim")
    return text
