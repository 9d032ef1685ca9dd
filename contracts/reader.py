"""Bytes as a file that its reader may not go round in: so many reads, so many times its length, and no more.

Decoders read what a file tells them to. A few megabytes of empty DICOM items, PNG chunks or JPEG markers cost minutes
and gigabytes, while an image that somebody made is read in a few thousand pieces, each about once.
"""

import io

from contracts.errors import ImageError

MAXIMUM_READS = 100_000
MAXIMUM_PASSES = 8
SPARE_BYTES = 2**20
"""Read in vain on the smallest file: decoders ask for more than there is left."""


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
