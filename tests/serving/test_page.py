"""The page in a real browser, driven over the DevTools protocol."""

import base64
import io
import itertools
import json
import shutil
import subprocess
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from contracts.imaging import encode_png
from contracts.manifest import write_release
from serving.access.keys import create_key
from serving.runtime import Model
from tests.releases import real_images, write_small_release
from tests.services import Service, serve

websocket = pytest.importorskip("httpx_ws", reason="the DevTools protocol needs a WebSocket client")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DEADLINE_SECONDS = 30

pytestmark = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")

CHOOSE_FILE = """{
const transfer = new DataTransfer();
const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
transfer.items.add(new File([bytes], "upload.png"));
document.getElementById("image").files = transfer.files;
document.getElementById("check").requestSubmit();
}"""

CHOOSE_LABEL = """{
const label = document.getElementById("label");
label.selectedIndex = [...label.options].findIndex((option) => option.text === "%s");
document.getElementById("seed").value = %d;
document.getElementById("generate").requestSubmit();
}"""


class Page:
    """One open page."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        number = next(self._numbers)
        parameters = {"expression": script, "returnByValue": True}
        self._connection.send_text(json.dumps({"id": number, "method": "Runtime.evaluate", "params": parameters}))
        while (message := json.loads(self._connection.receive_text(timeout=DEADLINE_SECONDS))).get("id") != number:
            pass
        assert "exceptionDetails" not in message["result"], message
        return message["result"]["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """The value of the expression once it is true."""
        return until(lambda: self.run(script), f"{script}; the page says {self.run('document.body?.innerText')}")

    def text(self, element: str) -> str:
        return str(self.run(f"document.getElementById('{element}').innerText"))

    def submit_check(self, data: bytes) -> None:
        self.run(CHOOSE_FILE % base64.b64encode(data).decode())


def until(condition: Any, description: str) -> Any:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    pytest.fail(f"never came true: {description}")


@contextmanager
def browse(url: str, profile: Path) -> Iterator[Page]:
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--window-size=400,900"]
    process = subprocess.Popen(
        [str(BROWSER), *arguments, f"--user-data-dir={profile}", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        file = profile / "DevToolsActivePort"
        port = until(lambda: file.exists() and file.read_text().partition("\n")[0], "the browser starts")

        def address() -> str | None:
            tabs = httpx.get(f"http://127.0.0.1:{port}/json").json()
            return next((tab["webSocketDebuggerUrl"] for tab in tabs if tab["url"].startswith(url)), None)

        with websocket.connect_ws(until(address, f"the browser opens {url}")) as connection:
            yield Page(connection)
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def page(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browse(service.url + "/", tmp_path_factory.mktemp("profile")) as opened:
        opened.wait_for("document.getElementById('samples')?.hidden === false")
        yield opened


def test_samples_are_shown_at_once(page: Page) -> None:
    assert page.run("[...document.getElementById('model').options].map((option) => option.value)") == [
        "erratic",
        "labelled",
        "waves",
    ]
    assert page.run("document.getElementById('grid').naturalWidth") == 5 * 34 + 2
    assert "25 synthetic images of erratic" in page.text("grid-caption")
    assert "altered is not served" in page.text("obstacle")


def test_another_model_offers_its_labels(page: Page) -> None:
    page.run(
        "{ const m = document.getElementById('model'); m.value = 'labelled'; m.dispatchEvent(new Event('change')) }"
    )
    page.wait_for("document.getElementById('grid-caption').innerText.includes('images of labelled')")
    assert page.run("[...document.getElementById('label').options].map((option) => option.text)") == [
        "all in turn",
        "all as in training",
        "benign",
        "malignant",
    ]
    for seed, choice in enumerate(["all as in training", "malignant"], start=7):
        page.run(CHOOSE_LABEL % (choice, seed))
        page.wait_for(f"document.getElementById('grid-caption').innerText.includes('seed {seed}.')")
        assert page.text("generate-error") == ""


def test_seeds_that_would_be_rounded_are_not_sent(page: Page) -> None:
    for field in ("seed", "paint-seed"):
        for seed, valid in ((2**53 - 1, True), (2**53, False), (2**53 + 1, False), (-1, False)):
            page.run(f"document.getElementById('{field}').value = '{seed}'")
            assert page.run(f"document.getElementById('{field}').checkValidity()") == valid
        page.run(f"document.getElementById('{field}').value = ''")
    page.run(f"document.getElementById('seed').value = '{2**53 - 1}'")
    page.run("document.getElementById('generate').requestSubmit()")
    page.wait_for(f"document.getElementById('grid-caption').innerText.includes('seed {2**53 - 1}.')")
    page.wait_for("!document.getElementById('generate').hasAttribute('aria-busy')")
    # Nor by another model.
    page.run(f"document.getElementById('seed').value = '{2**53 + 1}'")
    page.run("document.getElementById('model').dispatchEvent(new Event('change'))")
    assert not page.run("document.getElementById('generate').hasAttribute('aria-busy')")
    page.run("document.getElementById('seed').value = ''")


def test_the_model_card_is_shown_as_it_is_written(page: Page) -> None:
    page.run("document.querySelector('#model-card summary').click()")
    page.wait_for("document.querySelector('#model-card-text h3') !== null")
    assert page.run("document.querySelector('#model-card-text h3').innerText") == "Model card: labelled"
    assert page.run("[...document.querySelectorAll('#model-card-text th')].map((cell) => cell.innerText)") == [
        "Part",
        "Images",
    ]
    assert page.run("[...document.querySelectorAll('#model-card-text td')].map((cell) => cell.innerText)") == [
        "train",
        "40",
    ]
    # Escaped in the Markdown.
    assert "near_duplicates: passed." in page.text("model-card-text")
    assert page.run("document.getElementById('privacy').hidden")
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")


DRAW = """{
const canvas = document.getElementById("mask");
canvas.scrollIntoView();
const box = canvas.getBoundingClientRect();
const at = (kind, x, y, dx) => canvas.dispatchEvent(new PointerEvent(kind, {
  buttons: 1, clientX: box.left + x * box.width, clientY: box.top + y * box.height, movementX: dx * box.width,
}));
at("pointerdown", 0.25, 0.5, 0);
at("pointermove", 0.75, 0.5, 0.5);
document.getElementById("paint-seed").value = 7;
document.getElementById("paint-count").value = 1;
document.getElementById("paint").requestSubmit();
}"""

CHOOSE_MASK = """{
const transfer = new DataTransfer();
const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
transfer.items.add(new File([bytes], "mask.png"));
document.getElementById("mask-file").files = transfer.files;
document.getElementById("mask-file").dispatchEvent(new Event("change"));
document.getElementById("paint").requestSubmit();
}"""

PAINTED = """{
const canvas = document.createElement("canvas");
const picture = document.getElementById("painted-grid");
[canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
canvas.getContext("2d").drawImage(picture, 0, 0);
[...canvas.getContext("2d").getImageData(2, 2, 32, 32).data].filter((_, index) => index % 4 === 0);
}"""


def choose_model(page: Page, name: str) -> None:
    page.run(
        f"{{ const m = document.getElementById('model'); m.value = '{name}'; m.dispatchEvent(new Event('change')) }}"
    )
    page.wait_for(f"document.getElementById('grid-caption').innerText.includes('images of {name}')")


def test_a_mask_is_drawn_or_chosen_and_painted_on(page: Page, service: Service) -> None:
    choose_model(page, "waves")
    assert page.run("document.getElementById('painting').hidden")
    choose_model(page, "labelled")
    assert not page.run("document.getElementById('painting').hidden")
    page.run("document.getElementById('paint').requestSubmit()")
    page.wait_for("document.getElementById('paint-error')?.hidden === false")
    assert "all pixels of the mask are 0" in page.text("paint-error")
    page.run(DRAW)
    page.wait_for("document.getElementById('painted')?.hidden === false")
    assert "1 images painted on your mask by the painter of labelled" in page.text("painted-caption")
    drawn = np.zeros((32, 32), np.uint8)
    drawn[15:18, 7:26] = 255
    expected = Model.load(service.models / "labelled").paint(drawn, 7, 0, 1).images[0, ..., 0]
    np.testing.assert_array_equal(np.array(page.run(PAINTED)).reshape(32, 32), expected)

    page.run(CHOOSE_MASK % base64.b64encode(encode_png(real_images(1)[0])).decode())
    page.wait_for("document.getElementById('paint-error')?.hidden === false")
    assert "is coloured" in page.text("paint-error")
    page.run("document.getElementById('clear-mask').click()")
    page.run("document.getElementById('painted').hidden = true")
    page.run(CHOOSE_MASK % base64.b64encode(encode_png(drawn.T[..., None])).decode())
    page.wait_for("document.getElementById('painted')?.hidden === false")
    expected = Model.load(service.models / "labelled").paint(drawn.T, 7, 0, 1).images[0, ..., 0]
    np.testing.assert_array_equal(np.array(page.run(PAINTED)).reshape(32, 32), expected)
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_check_shows_verdict_and_evidence(page: Page) -> None:
    page.submit_check(encode_png(np.random.default_rng(0).integers(150, 220, (32, 32, 3)).astype(np.uint8)))
    page.wait_for("document.getElementById('result')?.hidden === false")
    assert page.text("verdict") == "Synthetic"
    assert "Probability of synthetic" in page.text("evidence")
    assert page.run("document.getElementById('heatmap').width") == 4
    # The marker lies in the zone of the verdict.
    position = "document.getElementById('{}').getBoundingClientRect().{}"
    assert page.run(position.format("marker", "left")) > page.run(position.format("zone-synthetic", "left"))
    assert page.run(position.format("zone-synthetic", "left")) > page.run(position.format("zone-real", "right"))


def test_a_check_tells_where_a_generated_image_comes_from(page: Page, service: Service) -> None:
    # No number of JavaScript's.
    seed = 2**63 - 1
    request = {"model": "waves", "count": 2, "seed": seed, "format": "zip"}
    with (
        service.client() as client,
        zipfile.ZipFile(io.BytesIO(client.post("/v1/generate", json=request).content)) as archive,
    ):
        page.submit_check(archive.read("000001.png"))
    page.wait_for("document.getElementById('evidence').innerText.includes('It claims')")
    assert page.text("verdict") == "Synthetic"
    evidence = page.text("evidence")
    assert "signed, and the pixels are those that were signed" in evidence
    assert "Made again here: the same image." in evidence
    assert f"image 1 of seed {seed}, drawn by waves" in evidence
    page.submit_check(encode_png(np.random.default_rng(0).integers(40, 110, (32, 32, 3)).astype(np.uint8)))
    page.wait_for("document.getElementById('evidence').innerText.includes('that never means real')")


def test_any_model_may_answer_or_the_one_chosen(page: Page) -> None:
    assert page.run("[...document.getElementById('judge').options].map((option) => option.value)") == [
        "",
        "erratic",
        "labelled",
        "waves",
    ]
    image = encode_png(np.random.default_rng(0).integers(40, 110, (32, 32, 3)).astype(np.uint8))
    for judge, answering in (("waves", "waves"), ("", "erratic")):
        page.run(f"document.getElementById('judge').value = '{judge}'")
        page.submit_check(image)
        page.wait_for(
            "document.getElementById('result')?.hidden === false && "
            f"document.getElementById('evidence').innerText.includes('{answering}, version')"
        )
        assert ("For other models" in page.text("evidence")) == (judge == "")
    assert "labelled: " in page.text("evidence")


def test_collections_are_shown_page_by_page(
    page: Page, library: Service, collection_folder: Path, tmp_path: Path
) -> None:
    assert page.run("document.getElementById('collections').hidden")
    shown = "[...document.querySelectorAll('#thumbnails figcaption')].map((caption) => caption.innerText)"
    with browse(library.url + "/", tmp_path) as opened:
        opened.wait_for("document.getElementById('collections')?.hidden === false")
        opened.wait_for("document.getElementById('samples')?.hidden === false")
        assert f"verisynth collection fetch labelled FOLDER --version {collection_folder.name}" in opened.text(
            "collection-note"
        )
        opened.run("document.getElementById('browse').requestSubmit()")
        for first, count in ((0, 12), (12, 12), (24, 6)):
            expected = [f"{index}, {('benign', 'malignant')[index % 2]}" for index in range(first, first + count)]
            opened.wait_for(f"{shown}[0] === '{expected[0]}'")
            opened.wait_for("!document.getElementById('browse').hasAttribute('aria-busy')")
            assert opened.run(shown) == expected
            pictures = (
                "[...document.querySelectorAll('#thumbnails img')].filter((one) => one.naturalWidth === 32).length"
            )
            assert opened.run(pictures) == 2 * count
            opened.run("document.getElementById('more').click()")
        assert opened.run("document.getElementById('more').hidden")
        assert opened.text("browse-error") == ""
        assert opened.run("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_key_is_asked_for_kept_in_the_tab_and_forgotten(tmp_path: Path) -> None:
    write_small_release(tmp_path / "models" / "waves")
    keys = tmp_path / "keys.json"
    key = create_key(keys, ["generate", "check"])
    with (
        serve(tmp_path / "home", tmp_path / "models", VERISYNTH_KEYS_FILE=str(keys)) as keyed,
        browse(keyed.url + "/", tmp_path) as opened,
    ):
        opened.wait_for("document.getElementById('access')?.hidden === false")
        assert "needs a key" in opened.text("obstacle")
        opened.run(
            f"{{ document.getElementById('key').value = '{key}'; document.getElementById('access').requestSubmit() }}"
        )
        opened.wait_for("document.getElementById('samples')?.hidden === false")
        assert "25 synthetic images of waves" in opened.text("grid-caption")
        assert opened.run("document.getElementById('key').value") == ""
        assert opened.run("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
        opened.run("document.querySelector('#model-card summary').click()")
        opened.wait_for("document.querySelector('#model-card-text h3') !== null")
        opened.run("document.getElementById('forget').click()")
        opened.wait_for("document.getElementById('obstacle')?.hidden === false")
        assert opened.run("sessionStorage.length") == 0


def test_a_refused_file_is_explained(page: Page) -> None:
    page.submit_check(b"no image")
    page.wait_for("document.getElementById('check-error')?.hidden === false")
    assert "are no PNG, JPEG, TIFF, WEBP or DICOM image" in page.text("check-error")
    assert page.run("document.getElementById('result').hidden")


def test_the_page_fits_a_phone(page: Page) -> None:
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")


def test_every_field_has_a_label(page: Page) -> None:
    unlabelled = "[...document.querySelectorAll('input, select')].filter((field) => !field.labels.length).length"
    assert page.run(unlabelled) == 0


def test_a_failed_privacy_and_hostile_texts_are_only_text(tmp_path: Path) -> None:
    plain = write_small_release(tmp_path / "plain" / "leaky", failed_checks=("exact_copies",))
    document = {key: value for key, value in plain.manifest.items() if key not in ("files", "version")}
    hostile = '<img src=x onerror="document.title=1"> | **bold** `code` \\ # [link](/)'
    document["data"] |= {"title": hostile}
    document |= {"limitations": [hostile, "- none"], "intended_use": "# none"}
    write_release(
        tmp_path / "models" / "leaky", {name: plain.folder / name for name in plain.manifest["files"]}, document
    )
    with serve(tmp_path / "home", tmp_path / "models") as leaky, browse(leaky.url + "/", tmp_path) as opened:
        opened.wait_for("document.getElementById('privacy')?.hidden === false")
        assert "failed its privacy checks (exact_copies)" in opened.text("privacy")
        opened.run("document.querySelector('#model-card summary').click()")
        opened.wait_for("document.querySelector('#model-card-text blockquote') !== null")
        assert opened.run("document.querySelector('#model-card-text h3').innerText") == f"Model card: {hostile}"
        assert opened.run("document.querySelector('#model-card-text li').innerText") == hostile
        assert opened.run("document.querySelectorAll('#model-card-text :is(img, a, ol, ul ul, h1, h2)').length") == 0
        assert opened.run("document.querySelector('#model-card-text h4 + p').innerText") == "# none"


def test_the_page_says_what_a_model_was_trained_on(page: Page, tmp_path: Path) -> None:
    assert "Trained on: random numbers. Licence: none needed." in page.text("card")  # no title, as in older releases
    plain = write_small_release(tmp_path / "plain" / "waves")
    document = {key: value for key, value in plain.manifest.items() if key not in ("files", "version")}
    document["data"] |= {"title": "Cells", "origin": "a slide"}
    write_release(
        tmp_path / "models" / "waves", {name: plain.folder / name for name in plain.manifest["files"]}, document
    )
    with serve(tmp_path / "home", tmp_path / "models") as titled, browse(titled.url + "/", tmp_path) as opened:
        opened.wait_for("document.getElementById('card')?.innerText")
        assert "Trained on: Cells. Origin: a slide. Licence: none needed." in opened.text("card")
        assert opened.run("document.getElementById('judge-field').hidden")


def test_without_a_model_the_page_says_how_to_get_one(empty_service: Service, tmp_path: Path) -> None:
    with browse(empty_service.url + "/", tmp_path) as page:
        page.wait_for("document.getElementById('obstacle')?.hidden === false")
        assert "dvc repro" in page.text("obstacle")
