"""The client against the real service, and behind a proxy that fails on demand."""

import inspect
import json
import pickle
import re
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from contracts.card import card
from contracts.errors import VerisynthError
from contracts.imaging import encode_png
from contracts.limits import MAXIMUM_COUNT, MAXIMUM_SEED
from contracts.manifest import read_release
from serving.client import sequence
from serving.client.client import Client
from serving.client.connection import ServiceError
from serving.client.download import IMAGES_PER_PART
from serving.edge import REQUEST_ID
from serving.runtime import Model
from tests.flaky import Flaky, altered, busy, cut_off, cut_off_stream, hang_up, other
from tests.releases import real_images
from tests.services import ROOT, Service

KEY = "vs_public_secret"


@pytest.fixture
def connected(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, in seconds, which are not waited for."""
    waited: list[float] = []
    monkeypatch.setattr("serving.client.connection.sleep", waited.append)
    return waited


def test_the_calls_that_are_documented_are_there() -> None:
    table = (ROOT / "docs" / "client.md").read_text().partition("| call | gives |")[2].partition("\n\n")[0]
    calls = re.findall(r"`(\w+)\(([^)]*)\)`", table)
    public = {name for name in vars(Client) if not name.startswith("_")} - {"close"}
    assert {name for name, _ in calls} == {"Client"} | public
    for name, text in calls:
        known = inspect.signature(Client if name == "Client" else getattr(Client, name)).parameters
        told = [parameter.partition("=") for parameter in text.split(", ") if parameter not in ("", "...")]
        assert {parameter for parameter, _, _ in told} <= set(known)
        assert all(str(known[parameter].default) == default for parameter, sign, default in told if sign)


# --- what it asks -------------------------------------------------------------------------------


def test_models_and_cards(connected: Client, service: Service) -> None:
    models = {model.name: model for model in connected.models()}
    assert sorted(models) == ["erratic", "labelled", "waves"]
    release = read_release(service.models / "labelled")
    labelled = connected.model("labelled")
    assert labelled == models["labelled"]
    assert (labelled.version, labelled.manifest) == (release.version, release.manifest)
    assert (labelled.labels, labelled.has_masks) == (["benign", "malignant"], True)
    assert (models["waves"].labels, models["waves"].has_masks) == ([], False)
    assert connected.card("labelled") == card(release.manifest)


def test_generate_is_what_the_model_draws(connected: Client, service: Service) -> None:
    model = Model.load(service.models / "labelled")
    samples = connected.generate(20, model="labelled", seed=7, balance="training", truncation=0.5)
    expected = model.generate(7, 0, 20, 0.5, balance="training")
    assert samples.images.dtype == np.uint8
    assert np.array_equal(samples.images, expected.images)
    assert samples.labels is not None
    assert expected.labels is not None
    assert np.array_equal(samples.labels, expected.labels)
    assert samples.masks is not None
    assert expected.masks is not None
    assert np.array_equal(samples.masks, expected.masks)
    assert (samples.seed, samples.model, samples.version, samples.start) == (7, "labelled", model.version, 0)
    assert connected.generate(2, "labelled", 7, label="malignant").labels.tolist() == [1, 1]  # type: ignore[union-attr]
    assert connected.generate(1, "waves").labels is None


def test_many_images_are_one_sequence_of_several_requests(service: Service, network: Flaky) -> None:
    count = MAXIMUM_COUNT + 76
    with Client(network.url) as client:
        samples = client.generate(count, model="labelled", seed=3)
        assert len(network.requests) > 1
        later = client.generate(5, model="labelled", seed=3, start=1000)
    expected = Model.load(service.models / "labelled").generate(3, 0, count)
    assert np.array_equal(samples.images, expected.images)
    assert samples.labels is not None
    assert np.array_equal(samples.labels, expected.labels)  # type: ignore[arg-type]
    assert np.array_equal(later.images, samples.images[1000:1005])
    assert later.start == 1000


def test_a_seed_is_chosen_and_told(connected: Client) -> None:
    first, second = connected.generate(300, model="waves"), connected.generate(1, model="waves")
    assert first.seed != second.seed
    assert np.array_equal(connected.generate(300, model="waves", seed=first.seed).images, first.images)


@pytest.mark.parametrize("fields", [{"count": 0}, {"count": 1.5}, {"start": -1}, {"seed": 0.5}, {"truncation": 2}])
def test_numbers_that_cannot_be_are_refused_unsent(network: Flaky, fields: dict[str, int]) -> None:
    with Client(network.url) as client, pytest.raises(VerisynthError, match=next(iter(fields))):
        client.generate(**{"count": 1} | fields)
    assert network.requests == []


def test_numpy_numbers_are_numbers(connected: Client) -> None:
    samples = connected.generate(1, model="waves", seed=np.int64(4), truncation=np.float32(0.5))  # type: ignore[arg-type]
    assert np.array_equal(samples.images, connected.generate(1, "waves", 4, truncation=0.5).images)


def test_another_model_in_the_middle_is_an_error(network: Flaky) -> None:
    network.faults = [altered(x_verisynth_version="0" * 12)]
    with (
        Client(network.url) as client,
        pytest.raises(VerisynthError, match=r"so far are of waves 0{12},.* begin anew"),
    ):
        client.generate(300, model="waves")


MASK = np.zeros((32, 32), dtype=bool)
MASK[8:20, 4:30] = True


def test_paint_is_what_the_model_paints_on_the_mask(connected: Client, service: Service, tmp_path: Path) -> None:
    model = Model.load(service.models / "labelled")
    data = encode_png(MASK.astype(np.uint8)[..., None] * 255)
    (tmp_path / "mask.png").write_bytes(data)
    expected = model.paint(MASK * np.uint8(255), 7, 2, 300, 0.5)
    for mask in (MASK, MASK.astype(np.uint8), data, tmp_path / "mask.png"):
        samples = connected.paint(mask, 300, "labelled", seed=7, truncation=0.5, start=2)
        assert np.array_equal(samples.images, expected.images)
        assert np.array_equal(samples.masks, np.repeat(MASK[None] * np.uint8(255), 300, axis=0))  # type: ignore[arg-type]
        assert (samples.seed, samples.model, samples.start, samples.labels) == (7, "labelled", 2, None)
    assert (connected.model("labelled").paints, connected.model("waves").paints) == (True, False)


def test_what_is_no_mask_is_refused_unsent(network: Flaky) -> None:
    with Client(network.url) as client:
        for mask in (np.zeros((32, 32), bool), real_images(1)[0], np.zeros((32, 32), np.float32)):
            with pytest.raises(VerisynthError, match=r"mask|pixels"):
                client.paint(mask, model="labelled")
    assert network.requests == []


# --- checks -------------------------------------------------------------------------------------


def test_check_takes_files_bytes_and_pixels(connected: Client, service: Service, tmp_path: Path) -> None:
    pixels = real_images(1, size=48, seed=3)[0]
    data = encode_png(pixels)
    (tmp_path / "image.png").write_bytes(data)
    expected = Model.load(service.models / "waves").judge(pixels)
    for image in (data, tmp_path / "image.png", str(tmp_path / "image.png"), pixels):
        verdict = connected.check(image, model="waves")  # type: ignore[arg-type]
        assert verdict.verdict == expected.verdict == "real"
        assert verdict.synthetic_probability == expected.synthetic_probability
        assert verdict.typicality == expected.typicality
        assert (verdict.model, verdict.model_version) == ("waves", read_release(service.models / "waves").version)
        assert verdict.document["evidence"]["detector"]["kind"] == "brightness"
    assert connected.check(pixels[..., 0], model="waves").document["image"]["width"] == 48
    assert connected.check(pixels).document["evidence"]["typicalities"].keys() == {"erratic", "labelled", "waves"}


def test_names_of_files_are_not_sent(network: Flaky, tmp_path: Path) -> None:
    path = tmp_path / "Jane Doe 1970-01-01.png"
    path.write_bytes(encode_png(real_images(1)[0]))
    with Client(network.url) as client:
        client.check(path, model="waves")
    assert b"Jane" not in network.requests[0]["body"]


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros(3, np.uint8)])
def test_pixels_that_are_none_are_refused(connected: Client, pixels: np.ndarray) -> None:
    with pytest.raises(VerisynthError, match="must be uint8"):
        connected.check(pixels)


def test_check_many_answers_in_order_and_goes_on_after_bad_files(connected: Client, tmp_path: Path) -> None:
    good = [encode_png(image) for image in real_images(12)]
    bright = encode_png(np.full((32, 32, 3), 230, np.uint8))
    sources: list[bytes | Path] = [*good[:5], b"no image", tmp_path / "missing.png", bright, *good[5:]]
    found = list(connected.check_many(sources, model="erratic", concurrency=3))
    assert [checked.source for checked in found] == sources
    errors = [checked.error for checked in found if checked.error is not None]
    assert [type(error) for error in errors] == [ServiceError, FileNotFoundError, ServiceError]
    assert [error.code for error in errors if isinstance(error, ServiceError)] == ["not_an_image", "model_failure"]
    assert [checked.verdict.verdict for checked in found if checked.verdict] == ["real"] * 12


def test_check_many_holds_few_images_at_once(connected: Client) -> None:
    drawn = 0

    def images() -> Iterator[bytes]:
        nonlocal drawn
        for image in real_images(30):
            drawn += 1
            yield encode_png(image)

    answers = connected.check_many(images(), model="waves", concurrency=2)
    next(answers)
    assert drawn == 4
    answers.close()


def test_check_many_ends_where_every_image_would_fail(connected: Client, service: Service) -> None:
    images = [encode_png(image) for image in real_images(3)]
    with pytest.raises(ServiceError) as refused:
        list(connected.check_many(images, model="nothing"))
    assert refused.value.code == "unknown_model"
    with pytest.raises(VerisynthError, match="concurrency is 0"):
        next(connected.check_many(images, concurrency=0))


def test_a_service_that_hangs_up_on_one_image_is_asked_the_next(network: Flaky, pauses: list[float]) -> None:
    network.faults = [hang_up] * 2
    images = [encode_png(image) for image in real_images(2)]
    with Client(network.url, retries=1) as client:
        first, second = client.check_many(images, model="waves", concurrency=1)
    assert isinstance(first.error, ServiceError)
    assert first.error.code == "unreachable"
    assert second.verdict is not None


def test_an_image_that_is_too_large_is_told_so(connected: Client) -> None:
    with pytest.raises(ServiceError) as refused:
        connected.check(b"\0" * 20 * 1024**2)
    assert (refused.value.code, refused.value.status) == ("body_too_large", 413)


# --- retries ------------------------------------------------------------------------------------


def test_a_busy_service_is_asked_again_when_it_wants(network: Flaky, pauses: list[float]) -> None:
    network.faults = [busy(retry_after="7"), busy(429, "rate_limited", retry_after="3"), busy(502, retry_after=None)]
    with Client(network.url, key=KEY) as client:
        samples = client.generate(2, model="waves")
    assert len(network.requests) == 4
    assert 7 <= pauses[0] <= 7.5
    assert 3 <= pauses[1] <= 4
    assert 1 <= pauses[2] <= 2
    # The same request every time: same seed, same request id, same key.
    assert len({request["body"] for request in network.requests}) == 1
    assert json.loads(network.requests[0]["body"])["seed"] == samples.seed
    names = {request["headers"]["x-request-id"] for request in network.requests}
    assert len(names) == 1
    with Client(network.url) as client:
        client.models()
    assert REQUEST_ID.fullmatch(names.pop())
    assert network.requests[-1]["headers"]["x-request-id"] != network.requests[0]["headers"]["x-request-id"]
    assert {request["headers"]["authorization"] for request in network.requests[:4]} == {f"Bearer {KEY}"}


@pytest.mark.parametrize("fault", [hang_up, cut_off, cut_off_stream])
def test_a_lost_connection_is_made_again(network: Flaky, pauses: list[float], fault: object) -> None:
    network.faults = [fault, fault, fault]  # type: ignore[list-item]
    with Client(network.url) as client:
        samples = client.generate(40, model="waves", seed=5)
        assert np.array_equal(samples.images, client.generate(40, model="waves", seed=5).images)
    assert all(second > first / 2 for first, second in pairwise(pauses))
    assert len(pauses) == 3


def test_tries_end(network: Flaky, pauses: list[float]) -> None:
    network.faults = [busy()] * 9
    with Client(network.url, retries=2) as client, pytest.raises(ServiceError) as failed:
        client.models()
    assert (failed.value.code, failed.value.status, failed.value.request_id) == ("overloaded", 503, "fault")
    assert failed.value.message == str(failed.value) == "a fault"
    assert (len(network.requests), len(pauses)) == (3, 2)


@pytest.mark.parametrize(
    "fault",
    [busy(503, retry_after="3600"), busy(503, "model_refused"), busy(504, "timeout"), busy(500, "internal_error")],
)
def test_what_waiting_does_not_mend_is_not_tried_again(network: Flaky, pauses: list[float], fault: object) -> None:
    network.faults = [fault]  # type: ignore[list-item]
    with Client(network.url) as client, pytest.raises(ServiceError):
        client.models()
    assert (len(network.requests), pauses) == (1, [])


def test_refusals_are_told_and_not_tried_again(network: Flaky, pauses: list[float]) -> None:
    with Client(network.url) as client, pytest.raises(ServiceError, match="no label 'blue'") as refused:
        client.generate(1, model="labelled", label="blue")
    assert (refused.value.code, refused.value.status) == ("unknown_label", 422)
    assert refused.value.request_id == network.requests[0]["headers"]["x-request-id"]
    assert (len(network.requests), pauses) == (1, [])


def test_nobody_there(pauses: list[float]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Client(address, key=KEY) as client, pytest.raises(ServiceError) as failed:
            client.models()
    assert (failed.value.code, failed.value.status) == ("unreachable", None)
    assert address in failed.value.message
    assert failed.value.request_id
    assert len(pauses) == 4
    with pytest.raises(ServiceError):
        list(Client(address, retries=0).check_many([b"", b""]))


def test_silence_is_bounded(pauses: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(address, timeout_seconds=0.2, retries=1) as client, pytest.raises(ServiceError) as failed:
            client.models()
    assert failed.value.code == "unreachable"


def test_errors_survive_processes() -> None:
    error = pickle.loads(pickle.dumps(ServiceError("overloaded", "busy", "1", 503)))
    assert (error.code, error.message, error.request_id, error.status) == ("overloaded", "busy", "1", 503)


# --- strange services ---------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b"null", b'{"models": [{"name": "waves"}]}'])
def test_another_server_is_named(network: Flaky, body: bytes) -> None:
    with Client(network.url) as client:
        for call in (client.models, lambda: client.model("waves"), lambda: client.check(b"image")):
            network.faults = [other(body)]
            with pytest.raises(ServiceError, match="is it the address of the service") as failed:
                call()
            assert failed.value.code == "unexpected_answer"


def test_another_servers_error_is_named(network: Flaky) -> None:
    with Client(f"{network.url}/elsewhere") as client, pytest.raises(ServiceError) as failed:
        client.models()
    assert (failed.value.code, failed.value.status) == ("not_found", 404)
    assert network.requests[0]["path"] == "/elsewhere/v1/models"


def test_names_of_models_cannot_leave_their_place(network: Flaky) -> None:
    with Client(network.url) as client, pytest.raises(ServiceError):
        client.model("../../metrics?x=1#")
    assert network.requests[0]["path"] == "/v1/models/..%2F..%2Fmetrics%3Fx%3D1%23"


@pytest.mark.parametrize(
    "url", ["", "localhost:3000", "ftp://x", "http://", "http://x?y=1", "http://me:secret@x", "http://x:y"]
)
def test_addresses_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(VerisynthError, match="address of the service") as refused:
        Client(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schlüssel"])
def test_keys_that_are_none_are_refused_unrepeated(key: str) -> None:
    with pytest.raises(VerisynthError, match="the key is empty or holds") as refused:
        Client("http://localhost", key=key)
    assert not key or key not in str(refused.value)


def test_one_client_serves_many_threads(connected: Client) -> None:
    found: dict[int, np.ndarray] = {}

    def draw(seed: int) -> None:
        found[seed] = connected.generate(3, model="waves", seed=seed).images

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(connected.generate(3, "waves", seed).images, found[seed]) for seed in range(8))


def test_limits_are_the_services_own() -> None:
    assert 2**sequence.SEED_BITS <= MAXIMUM_SEED
    assert IMAGES_PER_PART <= MAXIMUM_COUNT
