"""A compressed frame of a DICOM file, held against the size that its header tells before anything is decoded.

Decoders go by the size in the codestream, and run lengths make 128 bytes of two.
"""

from struct import unpack

from pydicom.uid import JPEG2000, UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit, RLELossless

from contracts.errors import ImageError
from contracts.header import open_image

CODESTREAMS = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEG2000Lossless, JPEG2000)
ENCAPSULATED = (*CODESTREAMS, RLELossless)
RUN_LENGTH_HEADER_BYTES = 64
NO_RUN = 128
PADDING_BYTES = 1


def check_frame(frame: bytes, syntax: UID, width: int, height: int) -> None:
    """Refuse a frame that would not become `width` x `height` pixels.

    Raises:
        ImageError: `broken_image` for another size, `unsupported_pixels` for a transfer syntax that is not decoded.
        Exception: of many kinds, for codestreams that are broken.
    """
    if syntax not in ENCAPSULATED:
        raise ImageError(
            "unsupported_pixels",
            f"the DICOM file's transfer syntax is {syntax.name}; of the compressed ones, "
            f"{', '.join(known.name for known in ENCAPSULATED)} are taken",
        )
    if syntax == RLELossless:
        for segment in _segments(frame):
            _check_segment(segment, width * height)
        return
    with open_image(frame, ("JPEG", "JPEG2000")) as image:
        if image.size != (width, height):
            raise ImageError(
                "broken_image", f"the DICOM file says {width}x{height}, its codestream {image.width}x{image.height}"
            )


def _segments(frame: bytes) -> list[bytes]:
    """Each byte of the samples is a segment of its own (DICOM PS3.5, G.5); `frame` begins with where they start."""
    count, *starts = unpack("<16L", frame[:RUN_LENGTH_HEADER_BYTES])
    ends = [*starts[1:count], len(frame)]
    return [frame[start:end] for start, end in zip(starts[:count], ends, strict=False)]


def _check_segment(segment: bytes, size: int) -> None:
    """Refuse a segment that would become more than `size` bytes and the padding to an even number."""
    position = decoded = 0
    while position < len(segment):
        code = segment[position]
        if code < NO_RUN:
            position, decoded = position + code + 2, decoded + code + 1
        elif code > NO_RUN:
            position, decoded = position + 2, decoded + 257 - code
        else:
            position += 1
        if decoded > size + PADDING_BYTES:
            raise ImageError("broken_image", f"the DICOM file's run lengths make more than the {size} pixels it tells")
