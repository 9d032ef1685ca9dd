"""What `POST /v1/authenticity/batch` is sent: files one by one, or a ZIP of them. None is unpacked to disk.

A ZIP comes from a stranger. Its table of contents and what its entries say they unpack to are bounded before any is
read; an entry that says less than it holds ends where it said, and its checksum tells. Names are never paths.
"""

import functools
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.requests import Request

from serving.refusals import Refusal
from serving.settings import Settings
from serving.uploads import Spool, Upload, read_form

MAXIMUM_FILES = 1024
LONGEST_NAME = 255
IMAGE, ARCHIVE, MODEL = "image", "archive", "model"
# Images are packed already: a DICOM file may shrink to a half, what shrinks more is nearly empty or no image.
MAXIMUM_UNPACKED_RATIO = 4
# The table of contents is read at once, into objects of ten times its size.
LARGEST_TABLE_BYTES = 2**20
STEP_BYTES = 64 * 1024
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1


@dataclass(frozen=True)
class BatchFile:
    """One file: what its sender calls it, at most `LONGEST_NAME` characters, and its bytes.

    `read` blocks, may be called from any thread, and raises `Refusal` for a file that is not taken.
    """

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Batch:
    """The files of one request, and the model where the client names one."""

    files: list[BatchFile]
    model: str | None


async def read_batch(request: Request, spool: Spool, settings: Settings) -> Batch:
    """Read the body into the spool, out of which the files are read later.

    Raises:
        Refusal: what `read_form` raises; `broken_archive`, `too_many_files`, `body_too_large`, `invalid_request`.
    """
    form = await read_form(request, spool, {IMAGE: True, ARCHIVE: True, MODEL: False}, MAXIMUM_FILES)
    archives = [upload for upload in form.uploads if upload.field == ARCHIVE]
    if archives and len(form.uploads) > 1:
        raise Refusal("invalid_request", "there is an archive and another file; send one archive, or files")
    if archives:
        files = await anyio.to_thread.run_sync(_entries, spool, archives[0], settings)
    else:
        files = [
            BatchFile(upload.name[-LONGEST_NAME:], functools.partial(_stretch, spool, upload, settings))
            for upload in form.uploads
        ]
    if not files:
        raise Refusal("invalid_request", "there is no file; send some under the name image, or a ZIP as archive")
    return Batch(files, form.texts.get(MODEL))


def _stretch(spool: Spool, upload: Upload, settings: Settings) -> bytes:
    _check_size(upload.length, settings)
    return spool.read(upload.offset, upload.length)


def _entries(spool: Spool, upload: Upload, settings: Settings) -> list[BatchFile]:
    try:
        archive = zipfile.ZipFile(_Section(spool, upload))
    except Refusal:
        raise
    except Exception as error:  # zipfile raises many kinds on malformed bytes
        raise Refusal("broken_archive", f"the archive is no ZIP that can be read: {error}") from error
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MAXIMUM_FILES:
        raise Refusal("too_many_files", f"the archive holds {len(entries)} files; at most {MAXIMUM_FILES} are taken")
    if sum(entry.compress_size for entry in entries) > upload.length:
        raise Refusal("broken_archive", "the archive's entries are longer than itself; they must not overlap")
    unpacked, most = sum(entry.file_size for entry in entries), MAXIMUM_UNPACKED_RATIO * settings.maximum_batch_bytes
    if unpacked > most:
        raise Refusal("body_too_large", f"the archive unpacks to {unpacked} bytes; at most {most} are taken")
    return [
        BatchFile(entry.filename[-LONGEST_NAME:], functools.partial(_unpacked, archive, entry, settings))
        for entry in entries
    ]


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, settings: Settings) -> bytes:
    _check_size(max(entry.file_size, entry.compress_size), settings)
    if entry.flag_bits & ENCRYPTED:
        raise Refusal("broken_entry", "the entry is encrypted; send it without a password")
    if entry.compress_type not in COMPRESSIONS:
        # The others unpack in steps of any size.
        raise Refusal("broken_entry", f"the entry has compression {entry.compress_type}; store or deflate it")
    data = bytearray()
    try:
        with archive.open(entry) as opened:
            # Read whole, it would be unpacked in one step of any size.
            while piece := opened.read(STEP_BYTES):
                data += piece
    except Exception as error:  # zipfile and zlib raise many kinds on malformed bytes
        raise Refusal("broken_entry", f"the entry cannot be unpacked: {error}") from error
    return bytes(data)


def _check_size(size: int, settings: Settings) -> None:
    if size > settings.maximum_upload_bytes:
        most = settings.maximum_upload_bytes
        raise Refusal("file_too_large", f"the file has {size} bytes; at most {most} are taken")


class _Section(io.RawIOBase):
    """One file of the spool as a file of its own, of which no more is read at once than any entry needs."""

    def __init__(self, spool: Spool, upload: Upload) -> None:
        self._spool = spool
        self._upload = upload
        self._position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._upload.length}[whence]
        if origin + offset < 0:
            raise OSError("there is nothing before the archive")
        self._position = origin + offset
        return self._position

    def read(self, size: int | None = -1) -> Any:
        left = max(0, self._upload.length - self._position)
        size = left if size is None or size < 0 else min(size, left)
        if size > LARGEST_TABLE_BYTES:
            raise Refusal("too_many_files", f"the archive's table of contents has {size} bytes; send several batches")
        data = self._spool.read(self._upload.offset + self._position, size)
        self._position += len(data)
        return data
