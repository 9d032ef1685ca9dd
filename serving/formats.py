"""Generated images as bytes: NumPy arrays, PNG files, a grid to look at, DICOM files. All carry their claims.

An answer is written part by part, so that nobody holds it whole: parts are prepared side by side, added in order, and
what says where they come from is written last, since it holds the hashes of all.

    with FORMATS["zip"](origin, signing, start=0, count=256) as writer:
        for samples in parts:
            send(writer.add(writer.prepare(samples)))
        for piece in writer.finish():
            send(piece)

The same samples and key give the same bytes, whatever the parts: archives carry the date 1980-01-01, DICOM files none,
and Ed25519 draws no random numbers. (Content Credentials do.)
"""

import hashlib
import io
import json
import math
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from contracts.claims import GRID, IMAGE, MASK, SCHEMA, Claim, Origin, canonical, pixel_sha256
from contracts.imaging import grid
from contracts.marks import mark_png
from serving import png
from serving.dicom import dicom_file
from serving.provenance.claims import ClaimKeys
from serving.runtime import Samples

if TYPE_CHECKING:
    from serving.provenance.content_credentials import Credentials

MANIFEST = "manifest.json"
# What must wait for its turn waits in memory up to here, and on disk beyond.
SPOOL_BYTES = 2**20
PIECE_BYTES = 2**20

Part = TypeVar("Part")


@dataclass(frozen=True)
class Signing:
    """What stands behind the claims: the keys, and Content Credentials for PNG files where the operator has them."""

    keyring: ClaimKeys
    credentials: "Credentials | None" = None


class Writer(ABC, Generic[Part]):
    """One answer: the images `start` to `start + count - 1` of `origin`. Use it as a context: it may hold files."""

    media_type: ClassVar[str]
    extension: ClassVar[str]

    def __init__(self, origin: Origin, signing: Signing, start: int, count: int) -> None:
        self.origin = origin
        self.signing = signing
        self.start = start
        self.count = count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def write(cls, samples: Samples, origin: Origin, signing: Signing) -> bytes:
        """A whole answer at once."""
        with cls(origin, signing, samples.start, len(samples.images)) as writer:
            return b"".join([writer.add(writer.prepare(samples)), *writer.finish()])

    @abstractmethod
    def prepare(self, samples: Samples) -> Part:
        """What can be done for one part of the answer alone; may be called from several threads at once."""

    @abstractmethod
    def add(self, part: Part) -> bytes:
        """The bytes that follow from the next part; there may be none yet."""

    @abstractmethod
    def finish(self) -> Iterator[bytes]:
        """The bytes after the last part, in pieces."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held, whether the answer was finished or not."""


@dataclass(frozen=True)
class ClaimedArrays:
    """Part of an `npz`: the samples, and what is claimed of each picture."""

    samples: Samples
    claimed: list[dict[str, Any]]


class NpzWriter(Writer[ClaimedArrays]):
    """Arrays `images` uint8 [N, H, W, C], and `masks` uint8 [N, H, W], `labels` int64 [N] where the model has them.

    `provenance`, one string without dimensions, is the JSON of what is claimed of them all, under one signature.
    """

    media_type = "application/octet-stream"
    extension = "npz"

    def __init__(self, origin: Origin, signing: Signing, start: int, count: int) -> None:
        super().__init__(origin, signing, start, count)
        # An array is longer than what is held of it, so that its checksum can only follow it (a data descriptor).
        self._outlet = _Outlet(rewritable=False)
        self._archive = zipfile.ZipFile(self._outlet, "w", zipfile.ZIP_STORED)
        self._images: IO[bytes] | None = None
        self._masks = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115
        self._mask_shape: tuple[int, ...] | None = None
        self._labels: list[np.ndarray] = []
        self._claimed: list[dict[str, Any]] = []

    def prepare(self, samples: Samples) -> ClaimedArrays:
        return ClaimedArrays(samples, [_entry(kind, index, pixels) for kind, index, pixels in _pictures(samples)])

    def add(self, part: ClaimedArrays) -> bytes:
        samples = part.samples
        if self._images is None:
            self._images = self._begun("images", samples.images.dtype, (self.count, *samples.images.shape[1:]))
        self._images.write(_bytes(samples.images))
        if samples.masks is not None:
            self._mask_shape = samples.masks.shape[1:]
            self._masks.write(_bytes(samples.masks))
        if samples.labels is not None:
            self._labels.append(samples.labels)
        self._claimed += part.claimed
        return self._outlet.taken()

    def finish(self) -> Iterator[bytes]:
        assert self._images is not None, "an answer has at least one part"
        self._images.close()
        if self._mask_shape is not None:
            self._masks.seek(0)
            with self._begun("masks", np.dtype(np.uint8), (self.count, *self._mask_shape)) as entry:
                while piece := self._masks.read(PIECE_BYTES):
                    entry.write(piece)
                    yield self._outlet.taken()
        if self._labels:
            self._write("labels", np.concatenate(self._labels))
        document = self.signing.keyring.sealed(_description(self.origin, self.start) | {"images": self._claimed})
        self._write("provenance", np.array(canonical(document).decode()))
        self._archive.close()
        yield self._outlet.taken()

    def close(self) -> None:
        if self._images is not None:
            self._images.close()
        self._archive.close()
        self._masks.close()

    def _write(self, name: str, array: np.ndarray) -> None:
        with self._begun(name, array.dtype, array.shape) as entry:
            entry.write(_bytes(array))

    def _begun(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> IO[bytes]:
        """An entry with the head of an array, as numpy.savez writes it."""
        info = zipfile.ZipInfo(f"{name}.npy")
        # Whether the long form of the sizes is needed must be known before they are.
        info.file_size = math.prod(shape) * dtype.itemsize
        entry = self._archive.open(info, "w")
        descr = np.lib.format.dtype_to_descr(dtype)
        np.lib.format.write_array_header_1_0(entry, {"descr": descr, "fortran_order": False, "shape": shape})
        return entry


@dataclass(frozen=True)
class ClaimedFile:
    """A file of an archive, and what the manifest says of it."""

    name: str
    data: bytes
    entry: dict[str, Any]

    @staticmethod
    def of(name: str, data: bytes, claim: Claim) -> "ClaimedFile":
        entry = {"file": name, "sha256": hashlib.sha256(data).hexdigest()}
        told = {"kind": claim.kind, "index": claim.index, "pixel_sha256": claim.pixel_sha256}
        return ClaimedFile(name, data, entry | told)


class ArchiveWriter(Writer[list[ClaimedFile]]):
    """A ZIP of files, and `manifest.json` as the last one."""

    media_type = "application/zip"

    def __init__(self, origin: Origin, signing: Signing, start: int, count: int) -> None:
        super().__init__(origin, signing, start, count)
        self._outlet = _Outlet(rewritable=True)
        self._archive = zipfile.ZipFile(self._outlet, "w", zipfile.ZIP_STORED)
        self._entries: list[dict[str, Any]] = []

    def add(self, part: list[ClaimedFile]) -> bytes:
        for file in part:
            self._archive.writestr(zipfile.ZipInfo(file.name), file.data)
            self._entries.append(file.entry)
        return self._outlet.taken()

    def finish(self) -> Iterator[bytes]:
        manifest = self.signing.keyring.sealed(_description(self.origin, self.start) | {"files": self._entries})
        self._archive.writestr(zipfile.ZipInfo(MANIFEST), json.dumps(manifest).encode())
        self._archive.close()
        yield self._outlet.taken()

    def close(self) -> None:
        self._archive.close()

    def _claim(self, kind: str, index: int, pixels: np.ndarray) -> Claim:
        return self.signing.keyring.claim(kind, self.origin, index, pixels)


class PngArchiveWriter(ArchiveWriter):
    """PNG files `000000.png`, masks beside them as `000000-mask.png`."""

    extension = "zip"

    def prepare(self, samples: Samples) -> list[ClaimedFile]:
        files = []
        for kind, index, pixels in _pictures(samples):
            claim = self._claim(kind, index, pixels)
            name = f"{index:06d}-mask.png" if kind == MASK else f"{index:06d}.png"
            files.append(ClaimedFile.of(name, _png(pixels, claim, self.signing), claim))
        return files


class DicomArchiveWriter(ArchiveWriter):
    """DICOM files `000000.dcm` (Secondary Capture, marked as synthetic); no masks."""

    extension = "dicom.zip"

    def prepare(self, samples: Samples) -> list[ClaimedFile]:
        files = []
        for index, image in enumerate(samples.images, samples.start):
            claim = self._claim(IMAGE, index, image)
            files.append(ClaimedFile.of(f"{index:06d}.dcm", dicom_file(image, claim), claim))
        return files


class GridWriter(Writer[np.ndarray]):
    """One PNG with all images in a nearly square grid. It is one picture, so all of it comes at the end."""

    media_type = "image/png"
    extension = "png"

    def __init__(self, origin: Origin, signing: Signing, start: int, count: int) -> None:
        super().__init__(origin, signing, start, count)
        self._images = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115
        self._shape: tuple[int, ...] = ()

    def prepare(self, samples: Samples) -> np.ndarray:
        return samples.images

    def add(self, part: np.ndarray) -> bytes:
        self._shape = part.shape[1:]
        self._images.write(_bytes(part))
        return b""

    def finish(self) -> Iterator[bytes]:
        sheet = self._sheet()
        yield _png(sheet, self.signing.keyring.claim(GRID, self.origin, self.start, sheet, self.count), self.signing)

    def _sheet(self) -> np.ndarray:
        self._images.seek(0)
        images = np.frombuffer(self._images.read(), np.uint8).reshape(self.count, *self._shape)
        return grid(images, columns=math.ceil(math.sqrt(self.count)))

    def close(self) -> None:
        self._images.close()


FORMATS: dict[str, type[Writer[Any]]] = {
    "npz": NpzWriter,
    "zip": PngArchiveWriter,
    "png": GridWriter,
    "dicom": DicomArchiveWriter,
}


class _Outlet(io.RawIOBase):
    """What `zipfile` writes into, and out of which its bytes are taken.

    One that is `rewritable` lets it go back to what was not taken yet: then entries need no data descriptors.
    """

    def __init__(self, rewritable: bool) -> None:
        self._rewritable = rewritable
        self._held = io.BytesIO()
        self._taken_bytes = 0

    def write(self, data: Any) -> int:
        return self._held.write(data)

    def tell(self) -> int:
        return self._taken_bytes + self._held.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not self._rewritable:
            raise OSError("what was written may be gone")
        assert whence == io.SEEK_SET
        assert offset >= self._taken_bytes, "that was taken"
        return self._taken_bytes + self._held.seek(offset - self._taken_bytes)

    def taken(self) -> bytes:
        """What was written since it was asked last."""
        data = self._held.getvalue()
        self._taken_bytes += len(data)
        self._held = io.BytesIO()
        return data


def _png(pixels: np.ndarray, claim: Claim, signing: Signing) -> bytes:
    data = mark_png(png.encode(pixels), claim)
    return data if signing.credentials is None else signing.credentials.sign_png(data)


def _pictures(samples: Samples) -> Iterator[tuple[str, int, np.ndarray]]:
    """Kind, index and pixels uint8 [H, W, C] of every image, and of its mask after it."""
    for row, image in enumerate(samples.images):
        yield IMAGE, samples.start + row, image
        if samples.masks is not None:
            yield MASK, samples.start + row, samples.masks[row][..., None]


def _description(origin: Origin, start: int) -> dict[str, Any]:
    """What all claims of a set have in common, and the index of its first image."""
    return {"verisynth": SCHEMA, "synthetic": True, "kind": "set"} | origin.document() | {"start": start}


def _entry(kind: str, index: int, pixels: np.ndarray) -> dict[str, Any]:
    """What a claim adds to those of its set."""
    return {"kind": kind, "index": index, "pixel_sha256": pixel_sha256(pixels)}


def _bytes(array: np.ndarray) -> memoryview:
    """The bytes of an array in C order, without a copy where it lies so."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
