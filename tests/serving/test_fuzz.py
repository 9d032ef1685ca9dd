"""Broken requests by the hundred against a real service: it answers them all, in one form, and stays as it was.

FUZZ_CASES=5000 python -m pytest tests/serving/test_fuzz.py

A case is a number: the same number is the same request, and a failure names it.
"""

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import psutil
import pydicom
import pytest
from PIL import Image, TiffImagePlugin
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless

from contracts.imaging import encode_png
from serving.refusals import STATUSES
from tests.images import dicom, encoded
from tests.releases import real_images, write_small_release
from tests.services import Service, serve

CASES = int(os.environ.get("FUZZ_CASES", "600"))
MEBIBYTE = 1024**2
GROWTH_BYTES = 200 * MEBIBYTE
PIXELS = real_images(1)[0]
TELLING = [
    b"\0",
    b"\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"%s%n",
]

Mutation = Callable[[bytes, np.random.Generator], bytes]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    models = tmp_path_factory.mktemp("models")
    write_small_release(models / "waves")
    write_small_release(models / "labelled", channels=1, labels=("benign", "malignant"), tile_side=32)
    settings = {
        "VERISYNTH_WORKERS": "1",
        "VERISYNTH_MAXIMUM_UPLOAD_BYTES": str(MEBIBYTE),
        "VERISYNTH_MAXIMUM_BATCH_BYTES": str(4 * MEBIBYTE),
        "VERISYNTH_MAXIMUM_PIXELS": "4000000",
    }
    with serve(tmp_path_factory.mktemp("home"), models, **settings) as running:
        yield running


# --- what is broken -----------------------------------------------------------------------------


def pngs() -> list[bytes]:
    colour, grey = Image.fromarray(PIXELS), Image.fromarray(PIXELS[..., 0])
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[274] = 6
    return [
        encoded(colour, "PNG"),
        encoded(colour.quantize(16), "PNG", transparency=3),
        encoded(deep, "PNG"),
        encoded(grey.convert("1"), "PNG"),
        encoded(colour.convert("RGBA"), "PNG", exif=exif, icc_profile=b"x" * 50),
        encoded(grey, "PNG", save_all=True, append_images=[grey]),
    ]


def jpegs() -> list[bytes]:
    colour = Image.fromarray(PIXELS)
    exif = Image.Exif()
    exif[274] = 6
    return [
        encoded(colour, "JPEG"),
        encoded(colour, "JPEG", progressive=True, exif=exif),
        encoded(colour.convert("L"), "JPEG"),
        encoded(colour.convert("CMYK"), "JPEG", icc_profile=b"x" * 50),
        encoded(colour, "MPO", save_all=True, append_images=[colour]),
    ]


def tiffs() -> list[bytes]:
    colour = Image.fromarray(PIXELS)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = "described"
    made = [encoded(colour, "TIFF", compression=name) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg")]
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    return [
        *made,
        encoded(deep, "TIFF", tiffinfo=tags),
        encoded(Image.fromarray(PIXELS[..., 0] / np.float32(255)), "TIFF"),
        encoded(colour.convert("1"), "TIFF", compression="group4"),
        encoded(colour, "TIFF", save_all=True, append_images=[colour]),
        encoded(colour, "TIFF", big_tiff=True),
    ]


def webps() -> list[bytes]:
    colour = Image.fromarray(PIXELS)
    exif = Image.Exif()
    exif[274] = 6
    return [
        encoded(colour, "WEBP"),
        encoded(colour, "WEBP", lossless=True, exif=exif),
        encoded(colour.convert("RGBA"), "WEBP", icc_profile=b"x" * 50, xmp=b"<x/>"),
        encoded(colour, "WEBP", save_all=True, append_images=[colour.rotate(90)]),
    ]


def dicoms() -> list[bytes]:
    stored = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    plain = dicom(stored, window=(500, 300))

    def changed(change: Callable[[pydicom.Dataset], None]) -> bytes:
        dataset = pydicom.dcmread(io.BytesIO(plain))
        change(dataset)
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()

    def codestream(dataset: pydicom.Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        dataset.PixelData = encapsulate([encoded(Image.fromarray(stored), "JPEG2000", no_jp2=True)])

    def run_lengths(dataset: pydicom.Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = RLELossless
        segment = b"".join(b"\x1f" + bytes(range(32)) for _ in range(32))
        frame = struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13) + segment * 2
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].is_undefined_length = True

    def nest(dataset: pydicom.Dataset) -> None:
        table = pydicom.Dataset()
        table.LUTDescriptor, table.LUTData, table.ModalityLUTType = [256, 0, 16], bytes(512), "US"
        dataset.ModalityLUTSequence = [table]
        dataset["ModalityLUTSequence"].is_undefined_length = True

    return [
        plain,
        dicom(stored, photometric="MONOCHROME1"),
        *(changed(change) for change in (codestream, run_lengths, nest)),
    ]


# --- how it is broken ---------------------------------------------------------------------------


def flip(data: bytes, random: np.random.Generator) -> bytes:
    broken = bytearray(data)
    for position in random.integers(0, len(broken), random.integers(1, 9)):
        broken[position] = random.integers(0, 256)
    return bytes(broken)


def cut(data: bytes, random: np.random.Generator) -> bytes:
    return data[: random.integers(0, len(data))]


def repeat(data: bytes, random: np.random.Generator) -> bytes:
    start, end = sorted(random.integers(0, len(data), 2))
    return data[:end] + data[start:end] * int(random.integers(1, 20)) + data[end:]


def remove(data: bytes, random: np.random.Generator) -> bytes:
    start = random.integers(0, len(data))
    return data[:start] + data[start + random.integers(1, 40) :]


def overwrite(data: bytes, random: np.random.Generator) -> bytes:
    """With what is often a limit, anywhere, but sooner near the start, where headers are."""
    telling = TELLING[random.integers(len(TELLING))]
    position = int(len(data) * random.random() ** 3)
    return data[:position] + telling + data[position + len(telling) :]


def append(data: bytes, random: np.random.Generator) -> bytes:
    return data + random.bytes(random.integers(1, 500))


MUTATIONS: tuple[Mutation, ...] = (flip, cut, repeat, remove, overwrite, overwrite, append)


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    for _ in range(random.integers(1, 4)):
        data = MUTATIONS[random.integers(len(MUTATIONS))](data, random) or b"\0"
    return data[: MEBIBYTE // 2]


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have right checksums again, so that what is broken in them is looked at."""
    mended, position = bytearray(data[:8]), 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        chunk = data[position + 4 : position + 8 + length]
        mended += data[position : position + 4] + chunk + struct.pack(">I", zlib.crc32(chunk))
        position += 12 + length
    return bytes(mended)


def form(image: bytes) -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwaves\r\n--x\r\n'
    return head + b'Content-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + image + b"\r\n--x--\r\n"


def batch(random: np.random.Generator) -> bytes:
    """Several files, some of them broken."""
    head = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwaves\r\n'
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    good = encode_png(PIXELS)
    images = [good if random.random() < 0.5 else mutated(good, random) for _ in range(3)]
    return head + b"".join(part + image + b"\r\n" for image in images) + b"--x--\r\n"


def archive(random: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    compression = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED][random.integers(2)]
    with zipfile.ZipFile(buffer, "w", compression) as made:
        for number in range(3):
            made.writestr(f"{number}.png", encode_png(PIXELS))
    return buffer.getvalue()


def archive_form(data: bytes) -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="archive"; filename="a"\r\n\r\n'
    return head + data + b"\r\n--x--\r\n"


def strange_json(random: np.random.Generator) -> bytes:
    values = [
        None,
        True,
        -1,
        0,
        3,
        1e308,
        2**64,
        "",
        "waves",
        "labelled",
        "\ud800",
        "a" * 2000,
        [],
        {},
        [[[]]],
        0.5,
        "npz",
    ]
    names = ["model", "count", "seed", "label", "balance", "truncation", "format", "", "\0", "__class__"]
    chosen = {
        names[random.integers(len(names))]: values[random.integers(len(values))] for _ in range(random.integers(0, 6))
    }
    text = json.dumps({"count": 2} | chosen).encode()
    return mutated(text, random) if random.random() < 0.6 else text


class Corpus:
    """Requests by number."""

    def __init__(self) -> None:
        self.images = {"png": pngs(), "jpeg": jpegs(), "tiff": tiffs(), "webp": webps(), "dicom": dicoms()}
        self.kinds = [*self.images, "multipart", "json", "batch", "archive"]

    def ask(self, client: httpx.Client, number: int) -> httpx.Response:
        random = np.random.default_rng((7, number))
        kind = self.kinds[number % len(self.kinds)]
        if kind == "json":
            headers = {"Content-Type": "application/json"}
            return client.post("/v1/generate", content=strange_json(random), headers=headers)
        if kind == "multipart":
            body = mutated(form(encode_png(PIXELS)), random)
            boundary = "x" if random.random() < 0.9 else mutated(b"x; charset=utf-8", random).hex()
            return client.post(
                "/v1/authenticity", content=body, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}
            )
        if kind in ("batch", "archive"):
            body = mutated(batch(random), random) if kind == "batch" else archive_form(mutated(archive(random), random))
            return client.post(
                "/v1/authenticity/batch", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"}
            )
        sources = self.images[kind]
        image = mutated(sources[random.integers(len(sources))], random)
        if kind == "png" and random.random() < 0.7:
            image = with_checksums(image)
        model = [{}, {"model": "waves"}, {"model": "labelled"}][random.integers(3)]
        return client.post("/v1/authenticity", files={"image": ("a", image)}, data=model)


def test_every_source_is_an_image(target: Service) -> None:
    corpus = Corpus()
    with target.client() as client:
        for kind, sources in corpus.images.items():
            statuses = [client.post("/v1/authenticity", files={"image": ("a", data)}).status_code for data in sources]
            # All but those of several frames.
            assert statuses.count(200) >= len(sources) - 1, (kind, statuses)


def check_lines(answer: httpx.Response, number: int) -> None:
    """What a batch is answered: a line for each file, no internal error among them, and the last that counts them."""
    if not answer.headers["content-type"].startswith("application/x-ndjson"):
        return
    *lines, last = [json.loads(line) for line in answer.text.splitlines()]
    assert last["files"] == len(lines), f"case {number}"
    codes = [line["error"]["code"] for line in lines if "error" in line]
    assert last["errors"] == len(codes), f"case {number}"
    assert all(STATUSES[code] < 500 for code in codes), f"case {number}: {codes}"


def test_no_request_breaks_the_service(target: Service) -> None:
    corpus = Corpus()
    supervisor = psutil.Process(target.process.pid)
    workers = [process.pid for process in supervisor.children()]
    seen: dict[str, set[int]] = {kind: set() for kind in corpus.kinds}
    with target.client() as client:
        for number in range(100):
            corpus.ask(client, number)
        before = sum(psutil.Process(pid).memory_info().rss for pid in workers)
        for number in range(CASES):
            answer = corpus.ask(client, number)
            seen[corpus.kinds[number % len(corpus.kinds)]].add(answer.status_code)
            if answer.status_code == 200:
                check_lines(answer, number)
                continue
            assert answer.status_code < 500, f"case {number}: {answer.text}"
            error = answer.json()["error"]
            assert error.keys() == {"code", "message", "request_id"}, f"case {number}"
            assert STATUSES[error["code"]] == answer.status_code, f"case {number}"
            assert error["request_id"] == answer.headers["x-request-id"], f"case {number}"
        assert client.get("/readyz").status_code == 200
    assert [process.pid for process in supervisor.children()] == workers
    assert sum(psutil.Process(pid).memory_info().rss for pid in workers) - before < GROWTH_BYTES
    # Neither only whole nor only hopeless files.
    assert all(statuses >= {200, 422} for kind, statuses in seen.items() if kind in corpus.images)
    log = target.log.read_text()
    assert "Traceback" not in log
    assert "Warning" not in log
