"""Of a DICOM file the elements that are wanted, and nothing else of it.

pydicom parses a value when it is asked for, out of bytes that nothing bounds any more: a few megabytes of empty items
under the name of a number cost minutes and gigabytes. So the file is walked first, its values unread, and what pydicom
gets is a file of the wanted elements alone, none longer than it may be.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from struct import pack, unpack

import pydicom
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from contracts.errors import ImageError
from contracts.reader import BoundedReader

PREAMBLE_BYTES = 132
"""And the mark `DICM` after it."""
META_GROUP, ITEM_GROUP = 0x0002, 0xFFFE
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
TRANSFER_SYNTAX, PIXEL_DATA, TABLE = Tag("TransferSyntaxUID"), Tag("PixelData"), Tag("ModalityLUTSequence")
UNDEFINED = 0xFFFFFFFF
SHORT_BYTES = 1024
"""Far more than a few numbers or words need."""
TABLE_ITEMS = 16
"""Its numbers may look like the beginning of an item now and then."""
LONG_FORMS = {representation.encode() for representation in EXPLICIT_VR_LENGTH_32}

Limit = Callable[[int], int | None]
"""How many bytes the element of a tag may have; None: it is left out."""


@dataclass(frozen=True)
class _Header:
    tag: int
    representation: bytes
    """Empty where it is not told."""
    length: int
    start: int


def read_elements(data: bytes, limit: Limit) -> pydicom.FileDataset:
    """The elements of the data set that `limit` wants. An encapsulated frame comes as one fragment without offsets.

    Raises:
        ImageError: `broken_image` for elements that are too long or that are a sequence where none belongs, and for a
            file of more parts than any image has; `unsupported_pixels` for a deflated file.
    """
    file = BoundedReader(data)
    file.seek(PREAMBLE_BYTES)
    meta = _kept(file, "<", True, lambda tag: SHORT_BYTES if tag == TRANSFER_SYNTAX else None, META_GROUP)
    start = data[:PREAMBLE_BYTES] + meta
    syntax = pydicom.dcmread(io.BytesIO(start)).file_meta.get("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        raise ImageError(
            "unsupported_pixels", "the DICOM file is deflated as a whole; save it as Explicit VR Little Endian"
        )
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    elements = _kept(file, order, _is_explicit(file), limit)
    return pydicom.dcmread(io.BytesIO(start + elements))


def _kept(file: BoundedReader, order: str, explicit: bool, limit: Limit, group: int | None = None) -> bytes:
    """The elements that are wanted, the last one of each tag, up to the end of the file or of the group."""
    kept: dict[int, bytes] = {}
    while header := _header(file, order, explicit):
        if group is not None and header.tag >> 16 != group:
            file.seek(header.start)
            break
        longest = limit(header.tag)
        if longest is None:
            _skip(file, order, explicit, header)
        else:
            kept[header.tag] = _element(file, order, explicit, header, longest)
    return b"".join(kept.values())


def _is_explicit(file: BoundedReader) -> bool:
    """Whether the elements tell their value representations, which files have been known to be wrong about."""
    start = file.read(6)
    file.seek(-len(start), io.SEEK_CUR)
    return _is_representation(start[4:])


def _is_representation(code: bytes) -> bool:
    return code.isalpha() and code.isupper()


def _header(file: BoundedReader, order: str, explicit: bool) -> _Header | None:
    """Of the element that the file stands at, the file then standing at its value; None at the end."""
    start = file.tell()
    code = file.read(8)
    if len(code) < 8:
        return None
    group, number, representation, short = unpack(f"{order}HH2sH", code)
    tag = group << 16 | number
    if not explicit or group == ITEM_GROUP or not _is_representation(representation):
        return _Header(tag, b"", unpack(f"{order}L", code[4:])[0], start)
    if representation not in LONG_FORMS:
        return _Header(tag, representation, short, start)
    length = file.read(4)
    return _Header(tag, representation, unpack(f"{order}L", length)[0], start) if len(length) == 4 else None


def _skip(file: BoundedReader, order: str, explicit: bool, header: _Header) -> None:
    """Go past the value; one of undefined length ends where all that began in it has ended."""
    if header.length != UNDEFINED:
        file.seek(header.length, io.SEEK_CUR)
        return
    depth = 1
    while depth:
        inner = _header(file, order, explicit)
        if inner is None:
            raise ImageError("broken_image", "the DICOM file ends within a sequence")
        if inner.tag in (ITEM_END, SEQUENCE_END):
            depth -= 1
        elif inner.length == UNDEFINED:
            depth += 1
        else:
            file.seek(inner.length, io.SEEK_CUR)


def _element(file: BoundedReader, order: str, explicit: bool, header: _Header, longest: int) -> bytes:
    """Header and value."""
    value = file.tell()
    if header.length == UNDEFINED and header.tag == PIXEL_DATA:
        frame = _frame(file, order)
        fragments = _item(order, ITEM, b"") + _item(order, ITEM, frame) + _item(order, SEQUENCE_END, b"")
        return _bytes(file, header.start, value) + fragments
    if header.tag != TABLE and (header.length == UNDEFINED or header.representation == b"SQ"):
        raise ImageError("broken_image", f"the DICOM file has a sequence as {Tag(header.tag)}, which is none")
    if header.length > longest and header.length != UNDEFINED:
        raise _too_long(header.tag, header.length)
    _skip(file, order, explicit, header)
    element = _bytes(file, header.start, file.tell())
    if len(element) > longest + value - header.start:
        raise _too_long(header.tag, len(element))
    if header.tag == TABLE and (items := element.count(_item(order, ITEM, b"")[:4])) > TABLE_ITEMS:
        raise ImageError("broken_image", f"the DICOM file's lookup table has {items} items; one is read")
    return element


def _bytes(file: BoundedReader, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _too_long(tag: int, length: int) -> ImageError:
    return ImageError("broken_image", f"the DICOM file's element {Tag(tag)} has {length} bytes, more than any has")


def _frame(file: BoundedReader, order: str) -> bytes:
    """The fragments of encapsulated pixels, joined; the table of offsets in front of them is left out."""
    fragments = []
    while (item := _header(file, order, True)) and item.tag == ITEM and item.length != UNDEFINED:
        fragments.append(file.read(item.length))
    if item is None or item.tag != SEQUENCE_END:
        raise ImageError("broken_image", "the DICOM file's compressed pixels do not end where they should")
    return b"".join(fragments[1:])


def _item(order: str, tag: int, value: bytes) -> bytes:
    even = value + b"\0" * (len(value) % 2)
    return pack(f"{order}HHL", tag >> 16, tag & 0xFFFF, len(even)) + even
