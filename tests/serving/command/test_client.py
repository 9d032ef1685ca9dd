"""The command `verisynth` against the real service: what it prints and how it ends."""

import csv
import importlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from contracts.imaging import encode_png
from contracts.manifest import read_release
from serving.command import ending
from serving.command.client import asks_the_service
from serving.command.main import main
from serving.runtime import Model
from tests.flaky import Flaky, busy, cut_off, flaky
from tests.releases import real_images
from tests.services import ROOT, Service

Command = Callable[..., Result]


@pytest.fixture
def verisynth(service: Service) -> Command:
    """The command in this process, asking the real service and no other try."""

    def run(*arguments: str | Path, url: str = service.url) -> Result:
        texts = [str(argument) for argument in arguments]
        return CliRunner().invoke(main, texts, env={"VERISYNTH_CLIENT_URL": url}, prog_name="verisynth")

    return run


@pytest.fixture
def network(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    monkeypatch.setattr("serving.client.connection.sleep", lambda _: None)
    with flaky(service.url) as running:
        yield running


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """`real.png`, `synthetic.png` and `broken.png`."""
    folder = tmp_path / "images"
    folder.mkdir()
    bright = np.full((32, 32, 3), 250, np.uint8)
    bright[:4] = 0
    (folder / "real.png").write_bytes(encode_png(real_images(1)[0]))
    (folder / "synthetic.png").write_bytes(encode_png(bright))
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_the_entry_point_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, name = project["scripts"]["verisynth"].split(":")
    assert getattr(importlib.import_module(module), name) is main


def test_the_client_asks_for_what_its_extra_has() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = {need.split(";")[0].strip() for need in project["dependencies"]}
    installed |= set(project["optional-dependencies"]["client"])
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert set(project["optional-dependencies"]["client"]) <= pinned
    program = (
        "import sys; before = set(sys.modules); import serving.command.main, serving.client.dataset\n"
        "print(*{name.split('.')[0] for name in sys.modules if name not in before})"
    )
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    others = set(loaded.stdout.split())
    assert {"httpx", "click", "filelock", "numpy"} <= others
    assert not others & {"bentoml", "onnxruntime", "torch", "starlette", "prometheus_client", "training", "monitoring"}


# --- generate -----------------------------------------------------------------------------------


def test_generate_saves_a_file(verisynth: Command, service: Service, tmp_path: Path) -> None:
    done = verisynth("generate", tmp_path / "a.npz", "--count", "5", "--model", "labelled", "--seed", "7")
    version = read_release(service.models / "labelled").version
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"5 images of labelled {version}, seed 7: {tmp_path / 'a.npz'}\n"
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["images"].shape == (5, 32, 32, 1)


def test_generate_takes_every_option(verisynth: Command, tmp_path: Path) -> None:
    options = ["--format", "zip", "--label", "benign", "--truncation", "0.5", "--start", "10", "--json"]
    done = verisynth("generate", tmp_path / "a", "--count", "3", "--model", "labelled", *options)
    told = json.loads(done.stdout)
    assert (told["label"], told["truncation"], told["start"], told["file_format"]) == ("benign", 0.5, 10, "zip")
    assert told["destination"] == str(tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").glob("*.png"))[0] == "000010-mask.png"
    balance = verisynth("generate", tmp_path / "b.npz", "--count", "3", "--model", "labelled", "--balance", "training")
    assert balance.exit_code == 0


def test_paint_saves_a_file(verisynth: Command, service: Service, tmp_path: Path) -> None:
    mask = np.zeros((32, 32, 1), np.uint8)
    mask[4:9] = 255
    (tmp_path / "mask.png").write_bytes(encode_png(mask))
    options = ("--model", "labelled", "--seed", "7", "--count", "3")
    done = verisynth("paint", tmp_path / "mask.png", tmp_path / "a.npz", *options)
    version = read_release(service.models / "labelled").version
    assert done.stdout == f"3 images of labelled {version}, seed 7: {tmp_path / 'a.npz'}\n", done.stderr
    with np.load(tmp_path / "a.npz") as arrays:
        assert np.array_equal(
            arrays["images"], Model.load(service.models / "labelled").paint(mask[..., 0], 7, 0, 3).images
        )
    folder = verisynth("paint", tmp_path / "mask.png", tmp_path / "a", *options)
    assert (folder.exit_code, "painted images go to a file" in folder.stderr) == (ending.USAGE, True)
    other = verisynth("paint", tmp_path / "mask.png", tmp_path / "b.npz", "--model", "waves")
    assert (other.exit_code, "no_painter" in other.stderr) == (ending.REFUSED, True)
    assert not (tmp_path / "b.npz").exists()


# --- collection ---------------------------------------------------------------------------------


def test_collections_are_listed_and_fetched(
    verisynth: Command, library: Service, collection_folder: Path, tmp_path: Path
) -> None:
    listed = verisynth("collection", "list", url=library.url)
    assert listed.exit_code == 0, listed.stderr
    assert listed.stdout.splitlines()[1].split()[:3] == ["labelled", collection_folder.name, "30"]
    for _ in range(2):
        done = verisynth("collection", "fetch", "labelled", tmp_path / "a", url=library.url)
        assert done.exit_code == 0, done.stderr
        assert done.stdout == f"30 images of labelled {collection_folder.name}, verified: {tmp_path / 'a'}\n"
    assert (tmp_path / "a" / "SHA256SUMS").read_bytes() == (collection_folder / "SHA256SUMS").read_bytes()
    missing = verisynth("collection", "fetch", "nothing", tmp_path / "b", url=library.url)
    assert (missing.exit_code, "0 collections are called nothing" in missing.stderr) == (ending.USAGE, True)
    told = json.loads(verisynth("collection", "list", "--json", url=library.url).stdout)
    assert [one["name"] for one in told["collections"]] == ["labelled"]


# --- check --------------------------------------------------------------------------------------


def test_check_prints_a_line_for_every_file(verisynth: Command, images: Path) -> None:
    files = [images / "real.png", images / "broken.png", images / "synthetic.png"]
    done = verisynth("check", *files, "--model", "waves")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [(line[0], line[-1]) for line in lines[1:]] == [
        ("real", str(files[0])),
        ("unchecked", str(files[1])),
        ("synthetic", str(files[2])),
    ]
    assert "broken.png: not_an_image: the 8 bytes are no" in done.stderr
    assert done.exit_code == ending.REFUSED


def test_check_for_programs(verisynth: Command, images: Path) -> None:
    done = verisynth("check", images / "real.png", images / "broken.png", "--model", "waves", "--json")
    real, broken = (json.loads(line) for line in done.stdout.splitlines())
    assert (real["file"], real["verdict"], real["model"]) == (str(images / "real.png"), "real", "waves")
    assert broken["error"].keys() == {"code", "message", "request_id"}
    assert broken["error"]["code"] == "not_an_image"


@pytest.mark.parametrize(
    ("names", "fail_on", "code"),
    [
        (["real.png"], ["any"], 0),
        (["real.png", "synthetic.png"], [], 0),
        (["real.png", "synthetic.png"], ["synthetic"], 1),
        (["real.png", "synthetic.png"], ["uncertain", "out_of_scope"], 0),
        (["real.png", "synthetic.png"], ["uncertain", "synthetic"], 1),
        (["broken.png"], ["synthetic"], 4),
        (["broken.png"], ["any"], 1),
        (["broken.png", "synthetic.png"], ["synthetic"], 1),
    ],
)
def test_check_ends_as_fail_on_says(
    verisynth: Command, images: Path, names: list[str], fail_on: list[str], code: int
) -> None:
    options = [text for outcome in fail_on for text in ("--fail-on", outcome)]
    assert verisynth("check", *(images / name for name in names), "--model", "waves", *options).exit_code == code


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (504, "timeout", ending.UNREACHABLE),
        (408, "body_too_slow", ending.UNREACHABLE),
        (500, "internal_error", ending.UNREACHABLE),
        (422, "broken_image", ending.REFUSED),
    ],
)
def test_check_ends_by_what_the_service_says_of_a_file(
    verisynth: Command, network: Flaky, images: Path, status: int, code: str, expected: int
) -> None:
    network.faults = [busy(status, code)]
    done = verisynth("check", images / "real.png", "--model", "waves", "--retries", "0", url=network.url)
    assert done.exit_code == expected
    assert f"{code}: a fault" in done.stderr


def test_check_ends_with_what_can_be_mended_first(
    verisynth: Command, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.client.client.LARGEST_FILE_BYTES", 20)
    (images / "huge.png").write_bytes(b"x" * 21)
    huge, broken = images / "huge.png", images / "broken.png"
    assert verisynth("check", huge, "--model", "waves").exit_code == ending.USAGE
    assert verisynth("check", broken, huge, "--model", "waves").exit_code == ending.USAGE
    assert verisynth("check", broken, huge, "--model", "waves", "--fail-on", "unchecked").exit_code == ending.FOUND


def test_names_of_files_cannot_steer_the_terminal(verisynth: Command, images: Path) -> None:
    (images / "\x1b[2J\nreal.png").write_bytes((images / "real.png").read_bytes())
    done = verisynth("check", images / "\x1b[2J\nreal.png", "--model", "waves")
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 2


# --- scan ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["report.csv", "report.jsonl"])
def test_scan_writes_a_report_and_goes_on(verisynth: Command, images: Path, tmp_path: Path, name: str) -> None:
    arguments = ["scan", images, "--report", tmp_path / name, "--model", "waves"]
    done = verisynth(*arguments, "--fail-on", "synthetic")
    assert done.exit_code == ending.FOUND
    counts = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    assert counts == {"real": 1, "synthetic": 1, "uncertain": 0, "out_of_scope": 0, "unchecked": 1, "images": 3}
    # What was found before counts as well.
    again = verisynth(*arguments, "--fail-on", "synthetic", "--json")
    assert again.exit_code == ending.FOUND
    summary = json.loads(again.stdout)
    assert (summary["checked_now"], summary["checked_before"], summary["outcomes"]["unchecked"]) == (0, 3, 1)
    assert verisynth(*arguments).exit_code == 0
    assert verisynth(*arguments, "--fail-on", "unchecked").exit_code == ending.FOUND


def test_a_scan_that_lost_the_service_goes_on(verisynth: Command, network: Flaky, images: Path, tmp_path: Path) -> None:
    network.faults = [busy(429, "rate_limited")] * 3
    arguments = ["scan", images, "--report", tmp_path / "report.csv", "--model", "waves", "--concurrency", "1"]
    assert verisynth(*arguments, "--retries", "1", url=network.url).exit_code == ending.UNREACHABLE
    assert verisynth(*arguments, url=network.url).exit_code == 0
    with (tmp_path / "report.csv").open(newline="") as file:
        assert sorted(row["path"] for row in csv.DictReader(file)) == ["./broken.png", "./real.png", "./synthetic.png"]


# --- models -------------------------------------------------------------------------------------


def test_models_are_listed(verisynth: Command, service: Service) -> None:
    done = verisynth("models")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["model", "erratic", "labelled", "waves"]
    assert "benign, malignant" in done.stdout
    assert "altered is not served" in done.stderr
    document = json.loads(verisynth("models", "--json").stdout)
    assert [model["name"] for model in document["models"]] == ["erratic", "labelled", "waves"]
    assert document["refused"].keys() == {"altered"}
    assert json.loads(verisynth("models", "waves", "--json").stdout) == document["models"][2]
    assert verisynth("models", "waves").stdout.startswith("# ")


def test_models_are_asked_for_once(verisynth: Command, network: Flaky) -> None:
    assert "altered is not served" in verisynth("models", url=network.url).stderr
    assert [request["path"] for request in network.requests] == ["/v1/models"]


# --- how it ends --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["models", "nothing"], 4, "unknown_model: there is no model 'nothing'"),
        (["generate", "a.npz", "--count", "1"], 4, "model_required"),
        (["generate", "a.npz", "--count", "2000", "--model", "waves"], 2, "at most 1024 images"),
        (["generate", "a.npz", "--count", "0"], 2, "--count"),
        (["generate", "no/folder/a.npz", "--count", "1"], 2, "there is no folder"),
        (["check", "missing.png"], 2, "missing.png"),
        (["check"], 2, "Missing argument"),
        (["models", "--url", "somewhere"], 2, "address of the service"),
        (["models", "--key", "two words"], 2, "the key is empty or holds"),
        (["scan", ".", "--report", "no/folder/report.csv"], 2, "there is no folder no/folder"),
        (["models", "--url", "http://127.0.0.1:9", "--retries", "0"], 3, "unreachable: no answer"),
    ],
)
def test_errors_are_words_and_codes(
    verisynth: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = verisynth(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(("status", "code"), [(503, 3), (429, 3), (408, 3), (504, 3), (401, 4), (403, 4), (422, 4)])
def test_codes_tell_whether_to_try_again(verisynth: Command, network: Flaky, status: int, code: int) -> None:
    network.faults = [busy(status, "a_code")] * 2
    done = verisynth("models", "--retries", "1", url=network.url)
    assert (done.exit_code, done.stderr) == (code, "a_code: a fault (request fault)\n")


def test_exit_codes_are_told(verisynth: Command) -> None:
    told = verisynth("--help").stdout
    for code in (0, ending.FOUND, ending.USAGE, ending.UNREACHABLE, ending.REFUSED, ending.INTERRUPTED):
        assert f"\n    {code} " in told


def test_a_cut_off_download_goes_on(verisynth: Command, network: Flaky, tmp_path: Path) -> None:
    network.faults = [cut_off]
    done = verisynth("generate", tmp_path / "a.npz", "--count", "5", "--model", "waves", url=network.url)
    assert (done.exit_code, len(network.requests)) == (0, 2)


def test_a_key_is_sent_and_never_told(network: Flaky) -> None:
    environment = {"VERISYNTH_CLIENT_URL": network.url, "VERISYNTH_CLIENT_KEY": "vs_public_secret"}
    done = CliRunner().invoke(main, ["models"], env=environment)
    assert done.exit_code == 0
    assert network.requests[0]["headers"]["authorization"] == "Bearer vs_public_secret"
    told = CliRunner().invoke(main, ["models", "--help"], env=environment)
    assert "secret" not in told.output


def test_unknown_variables_are_refused_by_name() -> None:
    done = CliRunner().invoke(main, ["models"], env={"VERISYNTH_CLIENT_ULR": "http://localhost"})
    assert done.exit_code == ending.USAGE
    assert "VERISYNTH_CLIENT_ULR; there are VERISYNTH_CLIENT_URL and VERISYNTH_CLIENT_KEY" in done.stderr


def test_groups_join_and_end_in_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.group()
    def keys() -> None:
        """A group of commands."""

    @keys.command()
    @asks_the_service
    def create(client: object, as_json: bool) -> None:
        raise OSError("no such disk")

    monkeypatch.setitem(main.commands, "keys", keys)
    done = CliRunner().invoke(main, ["keys", "create"])
    assert (done.exit_code, done.stderr) == (ending.USAGE, "no such disk\n")


# --- in a process of its own --------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "serving.command.main", *arguments]


def test_a_process_of_its_own(service: Service, images: Path, tmp_path: Path) -> None:
    environment = os.environ | {"VERISYNTH_CLIENT_URL": service.url}
    made = subprocess.run(
        command("generate", str(tmp_path / "samples"), "--count", "300", "--model", "waves", "--format", "zip"),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stderr) == (0, "")
    assert len(list((tmp_path / "samples").glob("*.png"))) == 300
    checked = subprocess.run(
        command("check", str(images / "synthetic.png"), "--model", "waves", "--fail-on", "synthetic"),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (1, "")
    assert checked.stdout.splitlines()[1].startswith("synthetic")


def test_people_see_a_progress_bar(service: Service, tmp_path: Path) -> None:
    terminal, theirs = pty.openpty()
    arguments = command("generate", str(tmp_path / "a"), "--count", "300", "--model", "waves", "--url", service.url)
    done = subprocess.run(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    os.close(theirs)
    shown = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert "generating" in shown
    assert "300/300" in shown
    assert "generating" not in done.stdout


def test_ctrl_c_ends_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            command("models", "--url", url),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # What a shell starts in the background ignores Ctrl-C, and so would everything that it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        silent.accept()[0].recv(1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == ending.INTERRUPTED
    assert said == "stopped; what was saved stays, and the same command goes on\n"


@pytest.mark.parametrize(
    ("typed", "offered"), [("verisynth sc", "scan"), ("verisynth check --fail-on o", "out_of_scope")]
)
def test_shells_complete_it(typed: str, offered: str) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    environment = os.environ | words | {"_VERISYNTH_COMPLETE": "bash_complete"}
    done = subprocess.run(command(), cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"plain,{offered}\n"
