"""PNG files, written fast: a generator at 64 pixels takes a millisecond an image, and Pillow's encoder as long again.

Each row is stored as differences to the left (filter 1), and compressed by Huffman codes and run lengths alone: in
noise, of which these images are full, there is nothing else to be found. Files of the bundled models are a
tenth larger, in a quarter of the time.
"""

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
BITS = 8
COLOUR_TYPES = {1: 0, 3: 2}
LEFT_FILTER = 1


def encode(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 1 or 3] as PNG bytes, without loss (PNG specification, third edition, sections 5, 9 and 11)."""
    height, width, channels = pixels.shape
    flat = pixels.reshape(height, width * channels)
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = LEFT_FILTER
    rows[:, 1 : 1 + channels] = flat[:, :channels]
    np.subtract(flat[:, channels:], flat[:, :-channels], out=rows[:, 1 + channels :])
    compressor = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", width, height, BITS, COLOUR_TYPES[channels], 0, 0, 0)
    data = compressor.compress(rows.data) + compressor.flush()
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
