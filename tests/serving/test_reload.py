"""Releases that change under a running service: two workers, clients that never rest, admin routes.

`RELOADS=20 pytest tests/serving/test_reload.py` swaps more often than the suite does.
"""

import hashlib
import io
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import onnx
import pytest

from contracts import ledger
from contracts.imaging import encode_png
from contracts.ledger import Ledger
from contracts.manifest import DETECTOR, GENERATOR, Release
from serving.access.keys import create_key
from serving.openapi import document
from serving.runtime import Model
from tests.monitoring.test_metrics import Samples, scrape, value
from tests.releases import promote, real_images, with_constant, with_graph, write_small_release
from tests.services import Service, serve

RELOADS = int(os.environ.get("RELOADS", "5"))
DEADLINE_SECONDS = 60
# Each request on a connection of its own asks either worker: idle ones agree by chance once in a million.
AGREEING = 20
WORKERS = 2
IMAGE = encode_png(real_images(1)[0])


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Release]:
    folder = tmp_path_factory.mktemp("made")
    return [write_small_release(folder / str(middle) / "waves", golden=True, middle=middle) for middle in (110, 120)]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers on an empty models folder; `chief` may administer, `ward` may ask."""
    folder = tmp_path_factory.mktemp("reload")
    (folder / "models").mkdir()
    settings = {
        "VERISYNTH_WORKERS": str(WORKERS),
        "VERISYNTH_THREADS": "1",
        "VERISYNTH_RELOAD_SECONDS": "1",
        "VERISYNTH_KEYS_FILE": str(folder / "keys.json"),
    }
    for name, scopes in (("chief", ["admin"]), ("ward", ["generate", "check"])):
        (folder / name).write_text(create_key(folder / "keys.json", scopes, name=name))
    with serve(folder / "home", folder / "models", **settings) as running:
        eventually(running, serves())
        yield running


@pytest.fixture
def service(started: Service) -> Iterator[Service]:
    """The same service, without any model again after each test."""
    yield started
    for path in started.models.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    eventually(started, lambda answer: answer == {"models": [], "refused": {}})


def key(service: Service, name: str) -> str:
    return (service.models.parent / name).read_text()


def eventually(service: Service, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Until all workers' `GET /v1/models` are as wanted."""
    deadline, agreeing, answer = time.monotonic() + DEADLINE_SECONDS, 0, {}
    with service.client(key(service, "chief")) as client:
        while agreeing < AGREEING and time.monotonic() < deadline:
            answer = client.get("/v1/models", headers={"Connection": "close"}).json()
            agreeing = agreeing + 1 if wanted(answer) else 0
            time.sleep(0 if agreeing else 0.05)
    assert agreeing == AGREEING, answer


def in_every_worker(service: Service, counter: Callable[[Samples], float], times: float) -> None:
    """Until all workers together counted so often: a busy worker accepts no connection, so it cannot be asked."""
    deadline, counted = time.monotonic() + DEADLINE_SECONDS, counter(scrape(service))
    while counted < WORKERS * times and time.monotonic() < deadline:
        time.sleep(0.05)
        counted = counter(scrape(service))
    assert counted == WORKERS * times


def serves(**expected: str) -> Callable[[dict[str, Any]], bool]:
    return lambda answer: {model["name"]: model["version"] for model in answer["models"]} == expected


def test_reloads_under_load_fail_no_request_and_mix_no_versions(service: Service, versions: list[Release]) -> None:
    before, failures_before = reloads(scrape(service)) / WORKERS, failures(scrape(service))
    promote(service.models, versions[0])
    eventually(service, serves(waves=versions[0].version))
    images = {release.version: Model.load(release.folder).generate(5, 0, 12).images for release in versions}
    ended = threading.Event()

    def ask(number: int) -> tuple[int, list[str]]:
        answered, failed = 0, []
        with service.client(key(service, "ward")) as client:
            while not ended.is_set():
                if number % 2:
                    answer = client.post("/v1/generate", json={"count": 12, "seed": 5, "format": "npz"})
                    right = answer.status_code == 200 and _images(answer) == (
                        images[answer.headers["x-verisynth-version"]].tobytes()
                    )
                else:
                    answer = client.post("/v1/authenticity", files={"image": ("x.png", IMAGE)})
                    right = answer.status_code == 200 and answer.json()["verdict"] == "real"
                answered += 1
                if not right:
                    failed.append(f"{answer.status_code} {answer.text[:300]}")
        return answered, failed

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(4)]
        try:
            for turn in range(1, RELOADS + 1):
                release = versions[turn % 2]
                promote(service.models, release)
                in_every_worker(service, reloads, before + 1 + turn)
        finally:
            ended.set()
        ended_with = [future.result() for future in asking]
    assert [failure for _, failed in ended_with for failure in failed] == []
    assert sum(answered for answered, _ in ended_with) > 4 * RELOADS
    eventually(service, serves(waves=versions[RELOADS % 2].version))
    after = scrape(service)
    assert reloads(after) == WORKERS * (before + 1 + RELOADS)
    assert failures(after) == failures_before
    assert [dict(labels)["version"] for labels in after["verisynth_model_info"]] == [versions[RELOADS % 2].version]


def reloads(samples: Samples) -> float:
    return value(samples, "verisynth_reloads_total", model="waves")


def failures(samples: Samples) -> float:
    return value(samples, "verisynth_reload_failures_total", model="waves")


def _images(answer: httpx.Response) -> bytes:
    """The pixels, all bytes behind the array's header: numpy's reader parses it, which before CPython 3.11.8 several
    threads cannot do at once (python/cpython issue 106905)."""
    with zipfile.ZipFile(io.BytesIO(answer.content)) as arrays:
        array = arrays.read("images.npy")
    return array[array.index(b"\n") + 1 :]


def test_models_come_break_and_go_while_the_service_runs(service: Service, versions: list[Release]) -> None:
    with service.client(key(service, "ward")) as client:
        assert client.get("/readyz").status_code == 503
        promote(service.models, versions[0])
        eventually(service, serves(waves=versions[0].version))
        assert client.get("/readyz").status_code == 200
        nan = with_constant(onnx.load(versions[0].folder / GENERATOR), "waves", np.nan)
        foreign = onnx.load(versions[0].folder / GENERATOR)
        waves = service.models / "waves"
        before = failures(scrape(service)) / WORKERS
        damages: list[tuple[Callable[[], object], str]] = [
            (
                lambda: (waves / DETECTOR).write_bytes((waves / DETECTOR).read_bytes()[:500]),
                "detector.onnx was altered",
            ),
            (lambda: with_graph(versions[0], DETECTOR, foreign, waves), "the contract says"),
            (lambda: with_graph(versions[0], GENERATOR, nan, waves), "draws nothing but the level"),
        ]
        for count, (damage, reason) in enumerate(damages, start=1):
            damage()
            eventually(service, lambda answer, reason=reason: reason in answer["refused"].get("waves", ""))
            answer = client.post("/v1/generate", json={"count": 1})
            assert answer.headers["x-verisynth-version"] == versions[0].version
            in_every_worker(service, failures, before + count)
        shutil.rmtree(waves)
        shutil.copytree(versions[0].folder, waves)
        eventually(service, lambda answer: answer["refused"] == {})
        write_small_release(service.models / "other")
        eventually(service, lambda answer: len(answer["models"]) == 2)
        shutil.rmtree(waves)
        eventually(service, lambda answer: [model["name"] for model in answer["models"]] == ["other"])
        assert client.post("/v1/generate", json={"count": 1, "model": "waves"}).status_code == 404
        assert client.post("/v1/generate", json={"count": 1}).status_code == 200
        models = {dict(labels)["model"] for labels in scrape(service)["verisynth_generated_images_total"]}
        assert models == {"other"}


def test_admin_lists_reloads_and_rolls_back(service: Service, versions: list[Release]) -> None:
    old, new = (release.version for release in versions)
    for release in versions:
        promote(service.models, release)
    write_small_release(service.models / "lonely")
    with service.client(key(service, "chief")) as chief, service.client(key(service, "ward")) as ward:
        changed = chief.post("/v1/admin/reload").json()
        keeps_to("Reload", changed)
        assert changed["other_workers_asked"] is True
        eventually(service, lambda answer: len(answer["models"]) == 2)
        listed = chief.get("/v1/admin/models").json()
        keeps_to("ServedModels", listed)
        assert [(model["name"], model["previous"]) for model in listed["models"]] == [("lonely", None), ("waves", old)]

        for path in ("/v1/admin/models/waves/rollback", "/v1/admin/reload"):
            assert ward.post(path).status_code == 403
            assert httpx.post(service.url + path).status_code == 401
        assert code(chief.post("/v1/admin/models/nothing/rollback")) == (404, "unknown_model")
        assert code(chief.post("/v1/admin/models/%2e%2e/rollback")) == (404, "unknown_model")
        assert code(chief.post("/v1/admin/models/lonely/rollback")) == (409, "rollback_refused")

        before = {path: digest(path) for path in (service.models / "waves").iterdir()}
        damaged = ledger.archive(service.models, "waves") / old / GENERATOR
        whole = damaged.read_bytes()
        damaged.write_bytes(b"damaged")
        # Forgotten, so there is nothing to go back to, and nothing was touched.
        assert code(chief.post("/v1/admin/models/waves/rollback")) == (409, "rollback_refused")
        assert {path: digest(path) for path in (service.models / "waves").iterdir()} == before
        damaged.write_bytes(whole)
        with ledger.held(service.models, "waves"):
            assert code(chief.post("/v1/admin/models/waves/rollback")) == (409, "rollback_refused")

        done = chief.post("/v1/admin/models/waves/rollback").json()
        keeps_to("Reload", done)
        assert (done["version"], done["withdrawn"], done["loaded"]) == (old, [new], {"waves": old})
        eventually(service, lambda answer: [model["version"] for model in answer["models"]][1] == old)
        assert ledger.load(service.models, "waves") == Ledger(champion=old, withdrawn=(new,))
        assert code(chief.post("/v1/admin/models/waves/rollback")) == (409, "rollback_refused")


def test_without_keys_admin_is_closed_and_reloads_go_on(tmp_path: Path, versions: list[Release]) -> None:
    (tmp_path / "models").mkdir()
    settings = {"VERISYNTH_WORKERS": "1", "VERISYNTH_RELOAD_SECONDS": "1"}
    with serve(tmp_path / "home", tmp_path / "models", **settings) as service, service.client() as client:
        for path in ("/v1/admin/reload", "/v1/admin/models/waves/rollback"):
            assert code(client.post(path, json={})) == (401, "unauthorized")
        # Keys that are not asked for do no harm.
        (tmp_path / "chief").write_text("vs_none_none")
        promote(service.models, versions[0])
        eventually(service, serves(waves=versions[0].version))


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def keeps_to(schema: str, answer: dict[str, Any]) -> None:
    jsonschema.validate(answer, document() | {"$ref": f"#/components/schemas/{schema}"})
