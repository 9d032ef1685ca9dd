"""Multipart bodies: one file in memory, or any number of files on their way to disk, in one temporary file.

Starlette's own parser opens a temporary file for each and writes what is longer than a mebibyte to disk: a thousand
small files would take all descriptors or all memory that a worker has, and a single one need not touch a disk.
"""

import os
import reprlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from serving.refusals import Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

WRITE_BYTES = 2**20
LONGEST_TEXT_BYTES = 1024


@dataclass(frozen=True)
class Upload:
    """One file of the body: where it lies in the spool, and what the client calls it."""

    field: str
    name: str
    offset: int
    length: int


class Spool:
    """The files of one body. Use it as a context; reading is safe from several threads at once."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Append to what is there."""
        self._file.write(data)
        self._file.flush()

    def read(self, offset: int, length: int) -> bytes:
        """So many bytes, fewer where the spool ends."""
        pieces = bytearray()
        while len(pieces) < length and (piece := os.pread(self._file.fileno(), length - len(pieces), offset)):
            pieces += piece
            offset += len(piece)
        return bytes(pieces)


@dataclass(frozen=True)
class Form:
    """A whole body: its files in their order, and its texts by field."""

    uploads: list[Upload]
    texts: dict[str, str]


async def read_form(request: Request, spool: Spool, fields: dict[str, bool], maximum_files: int) -> Form:
    """Read a multipart body into the spool; `fields` says which there may be, and whether each is a file.

    Raises:
        Refusal: `unsupported_media_type`, `malformed_multipart`, `too_many_files`, `invalid_request`.
    """
    reader = _FormReader(fields, maximum_files)
    async for _ in _parsed(request, reader):
        if len(reader.unwritten) >= WRITE_BYTES:
            await anyio.to_thread.run_sync(spool.write, reader.taken())
    await anyio.to_thread.run_sync(spool.write, reader.taken())
    return Form(reader.uploads, reader.texts)


async def read_file(request: Request, file: str, texts: tuple[str, ...]) -> tuple[bytes, dict[str, str]]:
    """The bytes of the one file of a multipart body, which stays in memory, and its texts by field.

    Raises:
        Refusal: `unsupported_media_type`, `malformed_multipart`, `invalid_request`.
    """
    reader = _FormReader({file: True} | dict.fromkeys(texts, False), maximum_files=1)
    async for _ in _parsed(request, reader):
        pass
    if not reader.uploads:
        raise Refusal("invalid_request", f"the part {file} is missing; send one file under that name")
    data = reader.taken()
    if not data:
        raise Refusal("invalid_request", f"the file {file} is empty")
    return data, reader.texts


def content_options(request: Request, media_type: str) -> dict[bytes, bytes]:
    """What the content type says beside the media type, which must be this one.

    Raises:
        Refusal: `unsupported_media_type`.
    """
    header = request.headers.get("content-type", "")
    found, options = parse_options_header(header.encode("latin-1"))
    if found != media_type.encode():
        raise Refusal("unsupported_media_type", f"the content type is {reprlib.repr(header)}; send {media_type}")
    return options


async def _parsed(request: Request, reader: "_FormReader") -> AsyncIterator[None]:
    """Let the reader see a body, piece by piece, to its end."""
    options = content_options(request, "multipart/form-data")
    try:
        parser = MultipartParser(options.get(b"boundary", b""), reader.callbacks())
        async for data in request.stream():
            parser.write(data)
            yield
    except FormParserError as error:
        raise Refusal("malformed_multipart", f"the multipart body is not taken: {error}") from error
    if not reader.ended:
        raise Refusal("malformed_multipart", "the multipart body is not taken: it ends before its last boundary")


class _FormReader:
    """What a parser calls while it reads one body."""

    def __init__(self, fields: dict[str, bool], maximum_files: int) -> None:
        self.uploads: list[Upload] = []
        self.texts: dict[str, str] = {}
        self.unwritten = bytearray()
        self.ended = False
        self._fields = fields
        self._maximum_files = maximum_files
        self._received_bytes = 0
        self._header = self._value = self._disposition = b""
        self._field = ""
        self._name: str | None = None
        self._begin = 0
        self._text = bytearray()

    def callbacks(self) -> "MultipartCallbacks":
        """What the parser is to call."""
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def taken(self) -> bytes:
        """The bytes of files that are not in the spool yet."""
        data, self.unwritten = bytes(self.unwritten), bytearray()
        return data

    def _part_begin(self) -> None:
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        name = options.get(b"filename")
        self._name = None if name is None else name.decode("utf-8", "replace")
        self._begin, self._text = self._received_bytes, bytearray()
        if self._field not in self._fields:
            known = ", ".join(self._fields)
            raise Refusal("invalid_request", f"unknown part {reprlib.repr(self._field)}; the parts are {known}")
        if self._fields[self._field] and self._name is None:
            raise Refusal("invalid_request", f"{self._field} is a text field; send the file itself, with a file name")
        if not self._fields[self._field] and (self._name is not None or self._field in self.texts):
            raise Refusal("invalid_request", f"{self._field} is there twice or a file; send it as one text field")
        if self._name is not None and len(self.uploads) == self._maximum_files == 1:
            raise Refusal("invalid_request", f"{self._field} is there twice; send it once")
        if self._name is not None and len(self.uploads) == self._maximum_files:
            raise Refusal("too_many_files", f"there are more than {self._maximum_files} files; send several batches")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name is not None:
            self.unwritten += data[start:end]
            self._received_bytes += end - start
            return
        self._text += data[start:end]
        if len(self._text) > LONGEST_TEXT_BYTES:
            raise Refusal("invalid_request", f"{self._field} has more than {LONGEST_TEXT_BYTES} bytes; send a name")

    def _part_end(self) -> None:
        if self._name is None:
            self.texts[self._field] = self._text.decode("utf-8", "replace")
        else:
            length = self._received_bytes - self._begin
            self.uploads.append(Upload(self._field, self._name, self._begin, length))

    def _end(self) -> None:
        self.ended = True
