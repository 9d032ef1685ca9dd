"""`POST /v1/paint` over HTTP, on a release whose painter tells inside from outside."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from contracts.claims import pixel_sha256
from contracts.imaging import decode, encode_png
from contracts.marks import read_mark
from serving.refusals import STATUSES
from serving.runtime import Model
from tests.images import encoded, png
from tests.releases import real_images, write_small_release
from tests.services import Service, serve

MASK = np.zeros((32, 32), dtype=np.uint8)
MASK[8:20, 4:30] = 255


def paint(client: httpx.Client, mask: bytes | None = None, **fields: Any) -> httpx.Response:
    files = {"mask": ("mask.png", png(MASK) if mask is None else mask)}
    return client.post("/v1/paint", files=files, data={"model": "labelled"} | fields)


def code_of(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    assert STATUSES[error["code"]] == answer.status_code
    return str(error["code"])


@pytest.fixture(scope="module")
def model(service: Service) -> Model:
    return Model.load(service.models / "labelled")


def test_it_is_what_the_painter_paints_on_the_mask(client: httpx.Client, model: Model) -> None:
    answer = paint(client, count=70, seed=7, start=3, truncation=0.5)
    assert answer.status_code == 200, answer.text
    with np.load(io.BytesIO(answer.content)) as arrays:
        assert arrays.files == ["images", "provenance"]
        np.testing.assert_array_equal(arrays["images"], model.paint(MASK, 7, 3, 70, 0.5).images)
        document = json.loads(arrays["provenance"].item())
    assert (document["mask_sha256"], document["label"], document["balance"]) == (
        pixel_sha256(MASK[..., None]),
        None,
        None,
    )
    assert {entry["kind"] for entry in document["images"]} == {"image"}
    assert answer.headers["X-Verisynth-Version"] == model.version
    assert answer.headers["X-Verisynth-Seed"] == "7"


def test_one_image_and_a_drawn_seed_where_nothing_is_asked_for(client: httpx.Client, model: Model) -> None:
    answer = paint(client)
    with np.load(io.BytesIO(answer.content)) as arrays:
        seed = int(answer.headers["X-Verisynth-Seed"])
        np.testing.assert_array_equal(arrays["images"], model.paint(MASK, seed, 0, 1).images)


@pytest.mark.parametrize(
    "mask", [png(MASK // 255), png(MASK > 0), encoded(Image.fromarray(MASK).convert("RGBA"), "PNG")], ids=str
)
def test_the_same_mask_in_another_file_gives_the_same_bytes(client: httpx.Client, mask: bytes) -> None:
    for form in ("npz", "zip", "png", "dicom"):
        fields = {"seed": 1, "count": 2, "format": form}
        assert paint(client, mask, **fields).content == paint(client, **fields).content


@pytest.mark.parametrize("form", ["zip", "dicom"])
def test_every_file_says_that_the_mask_was_the_clients(client: httpx.Client, form: str) -> None:
    answer = paint(client, count=2, seed=7, format=form)
    assert f"labelled-mask-{pixel_sha256(MASK[..., None])[:8]}-7." in answer.headers["Content-Disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != "manifest.json"}
    assert len(files) == 2
    for data in files.values():
        claim = read_mark(data)
        assert claim is not None
        assert claim.origin.mask_sha256 == pixel_sha256(MASK[..., None])
        checked = client.post("/v1/authenticity", files={"image": data}, data={"model": "labelled"}).json()
        provenance = checked["evidence"]["provenance"]
        assert (provenance["status"], provenance["reproduced"], checked["verdict"]) == ("valid", None, "synthetic")
        assert provenance["claim"]["mask_sha256"] == claim.origin.mask_sha256


EMPTY, FULL = np.zeros((32, 32), np.uint8), np.full((32, 32), 255, np.uint8)


@pytest.mark.parametrize(
    ("mask", "fields", "code"),
    [
        (png(EMPTY), {}, "empty_mask"),
        (png(FULL), {}, "not_a_mask"),
        (encode_png(real_images(1)[0]), {}, "not_a_mask"),
        (png(MASK[:, :31]), {}, "mask_size"),
        (png(np.repeat(np.repeat(MASK, 2, 0), 2, 1)), {}, "mask_size"),
        (png(np.zeros((2001, 2000), np.uint8)), {}, "image_too_large"),
        (b"no image", {}, "not_an_image"),
        (png(MASK)[:60], {}, "broken_image"),
        (b"\0" * (1024**2 + 1), {}, "body_too_large"),
        (b"", {}, "invalid_request"),
        (None, {"model": "waves"}, "no_painter"),
        (None, {"model": "altered"}, "model_refused"),
        (None, {"model": "nothing"}, "unknown_model"),
        (None, {"count": 0}, "invalid_request"),
        (None, {"count": 1025}, "invalid_request"),
        (None, {"count": "two"}, "invalid_request"),
        (None, {"count": "true"}, "invalid_request"),
        (None, {"count": "[" * 900}, "invalid_request"),
        (None, {"seed": -1}, "invalid_request"),
        (None, {"truncation": "NaN"}, "invalid_request"),
        (None, {"format": "gif"}, "invalid_request"),
        (None, {"label": "benign"}, "invalid_request"),
        (None, {"seed": ["1", "2"]}, "invalid_request"),
    ],
)
def test_it_refuses_by_name(client: httpx.Client, mask: bytes | None, fields: dict[str, Any], code: str) -> None:
    assert code_of(paint(client, mask, **fields)) == code


def test_several_models_want_one_named_and_a_mask_must_be_a_file(client: httpx.Client) -> None:
    assert code_of(client.post("/v1/paint", files={"mask": png(MASK)})) == "model_required"
    for content in ({"files": {"image": png(MASK)}}, {"files": {"mask": (None, "text")}}):
        assert code_of(client.post("/v1/paint", **content)) == "invalid_request"
    assert code_of(client.post("/v1/paint", json={"count": 1})) == "unsupported_media_type"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    """A service that keeps fingerprints and an audit log, and the folder of both."""
    pytest.importorskip("sqlalchemy", reason="the store comes with the extra `fingerprints`")
    folder = tmp_path_factory.mktemp("watched")
    write_small_release(folder / "models" / "labelled", channels=1, labels=("benign", "malignant"), masks=True)
    settings = {
        "VERISYNTH_WORKERS": "1",
        "VERISYNTH_AUDIT_FILE": str(folder / "audit.jsonl"),
        "VERISYNTH_FINGERPRINTS_URL": f"sqlite:///{folder}/fingerprints.db",
        "VERISYNTH_FINGERPRINTS_REQUIRED": "true",
    }
    with serve(folder / "home", folder / "models", **settings) as running:
        yield running, folder


def test_what_is_painted_is_counted_recorded_and_remembered(watched: tuple[Service, Path]) -> None:
    service, folder = watched
    with service.client() as client:
        answer = paint(client, count=3, seed=7, format="zip")
        metrics = client.get("/metrics").text
        assert 'verisynth_generated_images_total{model="labelled"} 3.0' in metrics
        assert 'verisynth_inference_seconds_count{kind="paint",model="labelled"} 1.0' in metrics
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            pixels = decode(archive.read("000001.png")).pixels
        match = client.post("/v1/authenticity", files={"image": encode_png(pixels)}).json()["evidence"]["provenance"][
            "match"
        ]
    assert (match["seed"], match["distance"], match["similarity"]) == (7, 0, None)
    assert match["mask_sha256"] == pixel_sha256(MASK[..., None])
    line = json.loads((folder / "audit.jsonl").read_text().splitlines()[0])
    assert (line["route"], line["model"], line["count"], line["status"]) == ("/v1/paint", "labelled", 3, 200)
    assert len(line["sha256"]) == 64
