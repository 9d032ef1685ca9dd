"""The service over HTTP, as its users meet it: real processes, real ONNX sessions."""

import hashlib
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from contracts import latents
from contracts.card import card
from contracts.claims import Origin
from contracts.imaging import decode, encode_png
from contracts.manifest import read_release
from serving.provenance.claims import ClaimKeys
from serving.refusals import STATUSES
from serving.runtime import Model
from tests.releases import real_images, write_small_release
from tests.services import Service, serve

REAL = encode_png(real_images(1)[0])
FUZZ = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def arrays(answer: httpx.Response) -> dict[str, np.ndarray]:
    assert answer.status_code == 200, answer.text
    with np.load(io.BytesIO(answer.content)) as stored:
        return dict(stored)


def error_code(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "request_id"}
    assert STATUSES[error["code"]] == answer.status_code
    return str(error["code"])


def encoded(pixels: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=form)
    return buffer.getvalue()


# --- generate -----------------------------------------------------------------------------------


def test_generate_is_what_the_model_draws(client: httpx.Client, service: Service) -> None:
    answer = client.post("/v1/generate", json={"model": "waves", "count": 150, "seed": 7})
    images = arrays(answer)["images"]
    expected = Model.load(service.models / "waves").generate(seed=7, start=0, count=150).images
    assert images.dtype == np.uint8
    assert np.array_equal(images, expected)
    assert answer.headers["x-verisynth-model"] == "waves"
    assert answer.headers["x-verisynth-version"] == read_release(service.models / "waves").version
    assert answer.headers["x-verisynth-seed"] == "7"


def test_the_same_image_whatever_the_count(client: httpx.Client) -> None:
    three, seven = (
        arrays(client.post("/v1/generate", json={"model": "waves", "count": count, "seed": 11}))["images"]
        for count in (3, 7)
    )
    assert np.array_equal(three, seven[:3])


@pytest.mark.parametrize("fields", [{}, {"balance": "training"}, {"label": "malignant"}], ids=str)
def test_parts_of_a_sequence_are_the_sequence(client: httpx.Client, fields: dict[str, str]) -> None:
    request = {"model": "labelled", "seed": 11} | fields
    whole = arrays(client.post("/v1/generate", json=request | {"count": 21}))
    parts = [
        arrays(client.post("/v1/generate", json=request | {"count": count, "start": start}))
        for start, count in ((0, 3), (3, 17), (20, 1))
    ]
    for name in ("images", "masks", "labels"):
        assert np.array_equal(np.concatenate([part[name] for part in parts]), whole[name])


def test_files_of_a_part_bear_the_indices_of_their_images(client: httpx.Client) -> None:
    request = {"model": "waves", "count": 2, "seed": 7, "start": 1024, "format": "zip"}
    answer = client.post("/v1/generate", json=request)
    assert 'filename="waves-7-1024.zip"' in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["001024.png", "001025.png", "manifest.json"]
        provenance = json.loads(archive.read("manifest.json"))
    assert provenance["start"] == 1024
    assert [entry["index"] for entry in provenance["files"]] == [1024, 1025]


@pytest.mark.parametrize("form", ["npz", "zip", "png", "dicom"])
def test_the_same_request_gives_the_same_bytes(client: httpx.Client, form: str) -> None:
    request = {"model": "labelled", "count": 4, "seed": 3, "truncation": 0.7, "format": form}
    first, second = (client.post("/v1/generate", json=request) for _ in range(2))
    assert first.status_code == 200
    assert first.content == second.content


def test_a_seed_is_drawn_and_told(client: httpx.Client) -> None:
    first, second = (client.post("/v1/generate", json={"model": "waves", "count": 2}) for _ in range(2))
    seed = int(first.headers["x-verisynth-seed"])
    assert seed != int(second.headers["x-verisynth-seed"])
    again = client.post("/v1/generate", json={"model": "waves", "count": 2, "seed": seed})
    assert again.content == first.content


def test_labels_and_masks(client: httpx.Client) -> None:
    request = {"model": "labelled", "count": 3, "seed": 1}
    in_turn = arrays(client.post("/v1/generate", json=request))
    assert in_turn["labels"].tolist() == [0, 1, 0]
    assert in_turn["masks"].shape == (3, 32, 32)
    chosen = arrays(client.post("/v1/generate", json=request | {"label": "malignant"}))
    assert chosen["labels"].tolist() == [1, 1, 1]


def test_labels_by_balance(client: httpx.Client, service: Service) -> None:
    request = {"model": "labelled", "count": 90, "seed": 1}
    drawn = arrays(client.post("/v1/generate", json=request | {"balance": "training"}))
    shares = read_release(service.models / "labelled").label_shares
    assert drawn["labels"].tolist() == latents.labels(1, 0, 90, shares).tolist()
    in_turn = client.post("/v1/generate", json=request)
    assert in_turn.content == client.post("/v1/generate", json=request | {"balance": "equal"}).content


@pytest.mark.parametrize(
    ("fields", "recorded"),
    [
        ({"model": "labelled"}, (None, "equal")),
        ({"model": "labelled", "balance": "training"}, (None, "training")),
        ({"model": "labelled", "label": "benign"}, ("benign", None)),
        ({"model": "waves"}, (None, None)),
    ],
)
@pytest.mark.parametrize("form", ["zip", "dicom"])
def test_archives_tell_how_labels_were_chosen(
    client: httpx.Client, form: str, fields: dict[str, str], recorded: tuple[str | None, str | None]
) -> None:
    answer = client.post("/v1/generate", json=fields | {"count": 2, "seed": 7, "format": form})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        provenance = json.loads(archive.read("manifest.json"))
    assert (provenance["label"], provenance["balance"]) == recorded


def test_zip_holds_png_files_and_their_origin(client: httpx.Client) -> None:
    answer = client.post("/v1/generate", json={"model": "waves", "count": 2, "seed": 7, "format": "zip"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["000000.png", "000001.png", "manifest.json"]
        provenance = json.loads(archive.read("manifest.json"))
    assert (provenance["synthetic"], provenance["model"], provenance["seed"]) == (True, "waves", 7)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"model": "waves", "count": 0}, "invalid_request"),
        ({"model": "waves", "count": "3"}, "invalid_request"),
        ({"model": "waves", "count": True}, "invalid_request"),
        ({"count": 1}, "model_required"),
        ({"model": "nothing", "count": 1}, "unknown_model"),
        ({"model": "altered", "count": 1}, "model_refused"),
        ({"model": "labelled", "count": 1, "label": "blue"}, "unknown_label"),
        ({"model": "waves", "count": 1, "label": "benign"}, "unknown_label"),
        ({"model": "waves", "count": 1, "balance": "equal"}, "invalid_request"),
        ({"model": "labelled", "count": 1, "balance": "training", "label": "benign"}, "invalid_request"),
        ([], "invalid_request"),
    ],
)
def test_generate_refuses(client: httpx.Client, request_: Any, code: str) -> None:
    assert error_code(client.post("/v1/generate", json=request_)) == code


def test_generate_refuses_what_is_no_json(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    assert error_code(client.post("/v1/generate", content=b"{", headers=headers)) == "malformed_json"
    assert error_code(client.post("/v1/generate", content=b"{}")) == "unsupported_media_type"
    assert error_code(client.post("/v1/generate", content=b"\0" * 2 * 1024**2, headers=headers)) == "body_too_large"


def test_an_unknown_model_is_answered_with_the_known_ones(client: httpx.Client) -> None:
    message = client.post("/v1/generate", json={"model": "nothing", "count": 1}).json()["error"]["message"]
    assert "erratic, labelled, waves" in message


# --- authenticity -------------------------------------------------------------------------------


def check(client: httpx.Client, data: bytes, model: str | None = "waves") -> httpx.Response:
    form = {} if model is None else {"model": model}
    return client.post("/v1/authenticity", files={"image": ("x.png", data, "image/png")}, data=form)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_authenticity_is_what_the_model_says(client: httpx.Client, service: Service, form: str) -> None:
    pixels = real_images(1, size=48, seed=3)[0]
    data = encoded(pixels, form)
    answer = check(client, data).json()
    expected = Model.load(service.models / "waves").judge(pixels)
    assert answer["verdict"] == expected.verdict == "real"
    assert answer["synthetic_probability"] == expected.synthetic_probability
    assert answer["model"] == "waves"
    assert answer["thresholds"] == {"real": 0.3, "synthetic": 0.7, "typicality": 0.02}
    assert answer["evidence"]["detector"]["tiles"] == 1
    assert np.array(answer["evidence"]["detector"]["heatmap"]).shape == (4, 4)
    assert answer["evidence"]["typicality"] == expected.typicality
    assert answer["evidence"]["provenance"]["status"] == "absent"
    digest = hashlib.sha256(data).hexdigest()
    assert answer["image"] == {"format": form, "width": 48, "height": 48, "sha256": digest}


def test_without_a_name_the_model_that_knows_such_images_answers(client: httpx.Client, service: Service) -> None:
    answer = check(client, REAL, model=None).json()
    pixels = real_images(1)[0]
    expected = {name: Model.load(service.models / name).judge(pixels) for name in ("erratic", "labelled", "waves")}
    assert answer["evidence"]["typicalities"] == {name: found.typicality for name, found in expected.items()}
    # The first of equally typical ones.
    assert answer["model"] == "erratic"
    assert answer["verdict"] == expected["erratic"].verdict
    assert check(client, REAL).json()["evidence"]["typicalities"] == {"waves": expected["waves"].typicality}
    assert error_code(check(client, encode_png(np.full((32, 32, 3), 230, np.uint8)), model=None)) == "model_failure"


def test_a_large_image_is_judged_by_tiles(client: httpx.Client) -> None:
    answer = check(client, encode_png(real_images(1, size=100)[0]), model="labelled").json()
    assert answer["evidence"]["detector"] == {
        "kind": "brightness",
        "verdict": answer["verdict"],
        "tiles": 9,
        "heatmap": None,
    }


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"no image at all", "not_an_image"),
        (REAL[: len(REAL) // 2], "broken_image"),
        (b"", "invalid_request"),
        (encode_png(np.zeros((8, 8, 1), np.uint8)), "image_too_small"),
        (encode_png(np.zeros((2001, 2001, 1), np.uint8)), "image_too_large"),
        (b"\0" * 2 * 1024**2, "body_too_large"),
    ],
)
def test_authenticity_refuses_files(client: httpx.Client, data: bytes, code: str) -> None:
    assert error_code(check(client, data)) == code


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"data": {"model": "waves"}, "files": {"other": b"x"}}, "invalid_request"),
        ({"files": {"image": (None, "http://127.0.0.1/x.png")}}, "invalid_request"),
        ({"files": {"model": ("m", b"waves"), "x": (None, b"")}}, "invalid_request"),
        ({"files": [("image", ("a", REAL)), ("image", ("b", REAL))]}, "invalid_request"),
        ({"files": {"image": ("a", REAL)}, "data": {"model": "waves", "other": "1"}}, "invalid_request"),
        ({"files": {"image": ("a", REAL)}, "data": {"model": "nothing"}}, "unknown_model"),
        ({"data": {"image": "text"}}, "unsupported_media_type"),
        ({"content": REAL, "headers": {"Content-Type": "image/png"}}, "unsupported_media_type"),
        ({"content": REAL}, "unsupported_media_type"),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data"}}, "malformed_multipart"),
        ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, "malformed_multipart"),
        ({"content": b"junk", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, "malformed_multipart"),
        ({"content": b"", "headers": {"Content-Type": b"multipart/\xff"}}, "unsupported_media_type"),
    ],
)
def test_authenticity_refuses_forms(client: httpx.Client, parts: dict[str, Any], code: str) -> None:
    assert error_code(client.post("/v1/authenticity", **parts)) == code


def test_ten_thousand_parts_are_refused(client: httpx.Client) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/v1/authenticity", content=part * 10_000 + b"--x--", headers=headers)
    assert error_code(answer) == "invalid_request"


def test_a_model_that_answers_nan_is_a_named_failure(client: httpx.Client) -> None:
    bright = encode_png(np.full((32, 32, 3), 230, np.uint8))
    answer = check(client, bright, model="erratic")
    assert error_code(answer) == "model_failure"
    assert answer.headers["retry-after"]


# --- provenance ---------------------------------------------------------------------------------


def generated(client: httpx.Client, model: str, form: str) -> dict[str, bytes]:
    request = {"model": model, "count": 2, "seed": 7, "format": form}
    with zipfile.ZipFile(io.BytesIO(client.post("/v1/generate", json=request).content)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "manifest.json"}


@pytest.mark.parametrize("model", ["waves", "labelled"])
@pytest.mark.parametrize("form", ["zip", "dicom"])
def test_what_was_generated_is_synthetic_whatever_the_detector_says(
    client: httpx.Client, form: str, model: str
) -> None:
    for data in generated(client, model, form).values():
        answer = check(client, data).json()
        provenance = answer["evidence"]["provenance"]
        assert (answer["verdict"], provenance["status"], provenance["reproduced"]) == ("synthetic", "valid", True)
        assert provenance["key_id"] == provenance["claim"]["key_id"]
        assert answer["evidence"]["detector"]["verdict"] in ("real", "uncertain", "synthetic")
    pixels = decode(data).pixels
    bare = check(client, encode_png(pixels)).json()
    assert bare["evidence"]["provenance"]["status"] == "absent"
    assert bare["verdict"] == bare["evidence"]["detector"]["verdict"] == answer["evidence"]["detector"]["verdict"]


@FUZZ
@given(data=st.data())
def test_a_mutated_mark_never_breaks_the_service(client: httpx.Client, data: st.DataObject) -> None:
    image = real_images(1)[0]
    fields = ("kind", "model", "version", "seed", "index", "truncation", "label", "balance", "signature", "x")
    values = st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.just("waves") | st.just("\ud800")
    version = client.get("/v1/models/waves").json()["version"]
    claim = ClaimKeys().claim("image", Origin("waves", version, 7, 1.0, None, None), 0, image)
    text = json.dumps(claim.document() | data.draw(st.dictionaries(st.sampled_from(fields), values, max_size=3)))
    xmp = f"<a xmlns:o='urn:verisynth:provenance#'><o:claim><![CDATA[{text}]]></o:claim></a>".encode()
    upload = io.BytesIO()
    Image.fromarray(image).save(upload, "TIFF", tiffinfo={700: xmp})
    answer = check(client, upload.getvalue())
    assert answer.status_code == 200, answer.text
    assert answer.json()["evidence"]["provenance"]["status"] in ("broken", "unsigned")
    assert answer.json()["verdict"] == "real"


def test_fingerprints_outlive_the_service_and_are_shared_by_its_workers(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy", reason="the store comes with the extra `fingerprints`")
    write_small_release(tmp_path / "models" / "waves")
    settings = {"VERISYNTH_FINGERPRINTS_URL": f"sqlite:///{tmp_path}/fingerprints.db", "VERISYNTH_WORKERS": "2"}
    with serve(tmp_path / "home", tmp_path / "models", **settings) as running, running.client() as client:
        # The service is told to end while the last of them are still to be written.
        made = [arrays(client.post("/v1/generate", json={"count": 9, "seed": seed}))["images"] for seed in range(9)]
    with serve(tmp_path / "home", tmp_path / "models", **settings) as running:
        for seed, images in enumerate(made):
            # A connection of its own: either worker may answer.
            with running.client() as client:
                match = check(client, encode_png(images[seed])).json()["evidence"]["provenance"]["match"]
            assert (match["seed"], match["index"], match["distance"], match["similarity"]) == (seed, seed, 0, 1.0)


# --- what no input may do -----------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
@FUZZ
@given(data=st.data())
def test_a_mutated_file_never_breaks_the_service(client: httpx.Client, form: str, data: st.DataObject) -> None:
    upload = bytearray(encoded(real_images(1)[0], form))
    for _ in range(data.draw(st.integers(1, 6))):
        upload[data.draw(st.integers(0, len(upload) - 1))] = data.draw(st.integers(0, 255))
    del upload[data.draw(st.integers(len(upload) // 2, len(upload))) :]
    answer = check(client, bytes(upload))
    assert answer.status_code < 500, answer.text
    assert answer.status_code == 200 or error_code(answer)


@FUZZ
@given(
    disposition=st.sampled_from(['form-data; name="image"; filename="x"', 'form-data; name="model"', "form-data", ""]),
    junk=st.binary(max_size=40),
    charset=st.sampled_from(["utf-8", "idna", "undefined", "utf-7", "hex", "no-such"]),
)
def test_a_strange_form_never_breaks_the_service(
    client: httpx.Client, disposition: str, junk: bytes, charset: str
) -> None:
    part = b"--x\r\nContent-Disposition: " + disposition.encode() + b"\r\n\r\n" + junk + b"\r\n--x--" + junk
    headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    answer = client.post("/v1/authenticity", content=part, headers=headers)
    assert 400 <= answer.status_code < 500, answer.text
    assert error_code(answer)


@FUZZ
@given(body=st.binary(max_size=60) | st.dictionaries(st.text(max_size=6), st.text() | st.integers()).map(json.dumps))
def test_strange_json_never_breaks_the_service(client: httpx.Client, body: bytes | str) -> None:
    answer = client.post("/v1/generate", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    assert error_code(answer)


# --- models, health, many clients ---------------------------------------------------------------


def test_models_are_listed_with_their_manifests(client: httpx.Client, service: Service) -> None:
    answer = client.get("/v1/models").json()
    assert [model["name"] for model in answer["models"]] == ["erratic", "labelled", "waves"]
    release = read_release(service.models / "waves")
    assert answer["models"][2] == client.get("/v1/models/waves").json()
    assert answer["models"][2]["manifest"] == release.manifest
    assert answer["models"][2]["version"] == release.version


def test_model_cards_are_markdown(client: httpx.Client, service: Service) -> None:
    answer = client.get("/v1/models/waves/card")
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert answer.text == card(read_release(service.models / "waves").manifest)
    assert error_code(client.get("/v1/models/nothing/card")) == "unknown_model"
    assert error_code(client.get("/v1/models/altered/card")) == "model_refused"


def test_an_altered_release_is_named_and_not_served(client: httpx.Client) -> None:
    reason = client.get("/v1/models").json()["refused"]["altered"]
    assert "generator.onnx was altered" in reason
    answer = client.get("/v1/models/altered")
    assert error_code(answer) == "model_refused"
    assert reason in answer.json()["error"]["message"]
    assert client.get("/readyz").status_code == 200


def test_unknown_paths_and_methods(client: httpx.Client) -> None:
    assert error_code(client.get("/v1/nothing")) == "not_found"
    assert error_code(client.get("/v1/models/nothing")) == "unknown_model"
    assert error_code(client.get("/v1/generate")) == "method_not_allowed"
    assert error_code(client.delete("/livez")) == "method_not_allowed"
    assert error_code(client.get("/web/../../service.py")) == "not_found"


def test_without_a_model_the_service_says_so(empty_service: Service) -> None:
    with empty_service.client() as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/v1/models").json() == {"models": [], "refused": {}}
        for answer in (
            client.get("/readyz"),
            client.post("/v1/generate", json={"count": 1}),
            check(client, REAL, model=None),
        ):
            assert error_code(answer) == "not_ready"
            assert "dvc repro" in answer.json()["error"]["message"]
        assert client.get("/").status_code == 200


def test_several_clients_at_once_get_their_own_answers(service: Service) -> None:
    def ask(seed: int) -> bytes:
        with service.client() as client:
            assert check(client, REAL).status_code == 200
            answer = client.post("/v1/generate", json={"model": "waves", "count": 70, "seed": seed})
            assert answer.headers["x-verisynth-seed"] == str(seed)
            return answer.content

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, [seed % 4 for seed in range(16)]))
    assert answers[:4] == answers[4:8] == answers[8:12] == answers[12:]
    assert len(set(answers)) == 4
