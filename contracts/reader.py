"""Bytes as a file that its reader may not go round in: so many reads, so many times its length, and no more.

Decoders read what a file tells them to. A few megabytes of empty DICOM items, PNG chunks or JPEG markers cost minutes
and gigabytes, while an image that somebody made is read in a few thousand pieces, each about once.
"""

import io
import zlib

from contracts.errors import ImageError

MAXIMUM_READS = 100_000
MAXIMUM_PASSES = 8
SPARE_BYTES = 2**20
"""Read in vain on the smallest file: decoders ask for more than there is left."""
MAXIMUM_INFLATED_BYTES = 128 * 2**20
"""Twice the default of the most pixels, so that 16 bits fit."""


class BoundedReader(io.BytesIO):
    """A file in memory that raises ImageError (`broken_image`) when it is read more often than any image needs."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left_reads = MAXIMUM_READS
        self._left_bytes = MAXIMUM_PASSES * len(data) + SPARE_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self._left_reads -= 1
        self._left_bytes -= len(piece)
        if self._left_reads < 0 or self._left_bytes < 0:
            raise ImageError("broken_image", "the file is made of more parts than any image has; save it anew")
        return piece


def check_inflation(deflated: bytes) -> None:
    """Refuse raw deflate data that grows beyond `MAXIMUM_INFLATED_BYTES`, having inflated no more than that.

    Raises:
        ImageError: `image_too_large`; data that is not deflate at all is left to whoever inflates it.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    left = MAXIMUM_INFLATED_BYTES
    try:
        while deflated and left > 0:
            left -= len(inflater.decompress(deflated, min(left, 2**20)))
            deflated = inflater.unconsumed_tail
    except zlib.error:
        return
    if deflated and not inflater.eof:
        raise ImageError(
            "image_too_large",
            f"the compressed part holds more than {MAXIMUM_INFLATED_BYTES} bytes; send it uncompressed",
        )
