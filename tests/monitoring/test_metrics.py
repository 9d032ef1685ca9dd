"""The metrics as a running service with two workers exposes them, and what reads them: rules, dashboard, Prometheus."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contracts.imaging import encode_png
from contracts.statistics import FEATURES
from serving.edge import CLIENT_CLOSED
from tests.releases import real_images
from tests.services import ROOT, Service

MONITORING = ROOT / "monitoring"
# Of Grafana's dashboards.
GRID_COLUMNS = 24
CONTRACT = {
    "verisynth_generated_images_total": {"model"},
    "verisynth_authenticity_checks_total": {"model", "verdict"},
    "verisynth_provenance_checks_total": {"status"},
    "verisynth_fingerprint_failures_total": {"operation"},
    "verisynth_synthetic_probability_bucket": {"model", "le"},
    "verisynth_inference_seconds_bucket": {"model", "kind", "le"},
    "verisynth_rejected_requests_total": {"reason"},
    "verisynth_cut_answers_total": {"reason"},
    "verisynth_audit_failures_total": set(),
    "verisynth_reloads_total": {"model"},
    "verisynth_reload_failures_total": {"model"},
    "verisynth_input_drift": {"model", "feature"},
    "verisynth_model_info": {"model", "version", "provider"},
}

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def scrape(service: Service) -> Samples:
    """Every sample of one scrape: name, then labels, to value."""
    samples: Samples = {}
    for family in text_string_to_metric_families(httpx.get(f"{service.url}/metrics").text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get(name, {}).get(tuple(sorted(labels.items())), 0.0)


def upload(service: Service, image: np.ndarray) -> httpx.Response:
    return httpx.post(
        f"{service.url}/v1/authenticity",
        files={"image": ("image.png", encode_png(image))},
        data={"model": "waves"},
        timeout=30,
    )


def answered(samples: Samples) -> float:
    """Requests for images that ended, however they did."""
    requests = samples["verisynth_requests_total"].items()
    return sum(count for labels, count in requests if ("route", "/v1/generate") in labels)


def leave_in_the_middle(service: Service, before: float) -> None:
    """Hang up in the middle of an answer; returns when it has ended, so that later counts are not of its images."""
    request = {"model": "waves", "count": 1024}
    with httpx.stream("POST", f"{service.url}/v1/generate", json=request, timeout=30) as answer:
        next(answer.iter_raw())
    deadline = time.monotonic() + 30
    while answered(scrape(service)) == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def samples(service: Service) -> Samples:
    """A scrape after at least one request of each kind."""
    upload(service, real_images(1)[0])
    httpx.post(f"{service.url}/v1/generate", json={"model": "waves", "count": 2})
    httpx.post(f"{service.url}/v1/generate", json={"model": "waves", "count": 0})
    # One that was made quickly may have been whole.
    while value(scraped := scrape(service), "verisynth_cut_answers_total", reason=CLIENT_CLOSED) == 0:
        leave_in_the_middle(service, answered(scraped))
    return scraped


def test_the_contract_is_kept(samples: Samples) -> None:
    for name, labels in CONTRACT.items():
        assert name in samples
        assert {key for key, _ in next(iter(samples[name]))} == labels


def test_counts_add_up_across_workers(service: Service) -> None:
    before = scrape(service)
    with ThreadPoolExecutor(8) as pool:
        request = {"model": "waves", "count": 3}
        list(pool.map(lambda _: httpx.post(f"{service.url}/v1/generate", json=request, timeout=30), range(24)))
        list(pool.map(lambda image: upload(service, image), real_images(24)))
        list(pool.map(lambda _: httpx.get(f"{service.url}/v1/models/none"), range(8)))
    # Each scrape comes on a connection of its own, so either worker may answer: all must say the same.
    for after in [scrape(service) for _ in range(6)]:

        def grown(name: str, after: Samples = after, **labels: str) -> float:
            return value(after, name, **labels) - value(before, name, **labels)

        assert grown("verisynth_generated_images_total", model="waves") == 72
        assert grown("verisynth_authenticity_checks_total", model="waves", verdict="real") == 24
        assert grown("verisynth_provenance_checks_total", status="absent") == 24
        assert grown("verisynth_synthetic_probability_count", model="waves") == 24
        assert grown("verisynth_inference_seconds_count", model="waves", kind="judge") == 24
        assert grown("verisynth_inference_seconds_count", model="waves", kind="generate") == 24
        assert grown("verisynth_rejected_requests_total", reason="unknown_model") == 8
        assert grown("verisynth_requests_total", route="/v1/models/{name}", status="404") == 8
        assert value(after, "verisynth_refused_releases") == 1
        info = after["verisynth_model_info"]
        assert sorted(dict(labels)["model"] for labels in info) == ["erratic", "labelled", "waves"]
        assert set(info.values()) == {1.0}


def test_drift_follows_the_uploads(service: Service) -> None:
    before = scrape(service)
    # Enough to fill the windows of both workers, however the uploads fall between them.
    for image in real_images(40, seed=5):
        upload(service, np.clip(image.astype(int) + 60, 0, 255).astype(np.uint8))
    after = scrape(service)
    assert value(after, "verisynth_input_drift", model="waves", feature="brightness") > 0.25
    others = {labels for labels in before["verisynth_input_drift"] if ("model", "waves") not in labels}
    assert all(after["verisynth_input_drift"][labels] == before["verisynth_input_drift"][labels] for labels in others)
    assert {dict(labels)["feature"] for labels in after["verisynth_input_drift"]} == set(FEATURES)


def test_clients_cannot_make_new_series(service: Service) -> None:
    for path in ("/a", "/b/c", "/v1/models/x", "/v1/models/y", "/web/z", "/static_content/z"):
        httpx.get(f"{service.url}{path}")
    routes = {dict(labels)["route"] for labels in scrape(service)["verisynth_requests_total"]}
    assert routes & {"/a", "/b/c", "/v1/models/x", "/v1/models/y", "/web/z", "/static_content/z"} == set()


# --- what reads the metrics ---------------------------------------------------------------------


def alert_expressions() -> Iterator[str]:
    yield from re.findall(r"expr: (?:>-\n)?(.*?)\n {8}(?:for|labels):", (MONITORING / "alerts.yml").read_text(), re.S)


def dashboard_expressions() -> Iterator[str]:
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def families(names: Iterable[str]) -> list[str]:
    """The names of metrics, out of those of their series."""
    return sorted({re.sub(r"_(bucket|sum|count|created)$", "", name) for name in names})


def metric_names(expressions: Iterable[str]) -> set[str]:
    return {name for expression in expressions for name in re.findall(r"\bverisynth_\w+", expression)}


def test_alerts_and_dashboard_ask_for_what_is_exposed(samples: Samples) -> None:
    alerts, dashboard = metric_names(alert_expressions()), metric_names(dashboard_expressions())
    assert len(alerts) >= 5
    assert len(dashboard) >= 8
    assert (alerts | dashboard) - samples.keys() == set()


def test_labels_asked_for_are_exposed(samples: Samples) -> None:
    for expression in [*alert_expressions(), *dashboard_expressions()]:
        for name, selector in re.findall(r"\b(verisynth_\w+)\{([^}]*)\}", expression):
            known = {key for labels in samples[name] for key, _ in labels} | {"instance", "job"}
            assert set(re.findall(r"(\w+)\s*(?:=~|=|!=)", selector)) <= known


def test_shares_of_errors_are_of_the_same_requests() -> None:
    shares = [text for text in [*alert_expressions(), *dashboard_expressions()] if 'status=~"5.."' in text]
    assert len(shares) == 2
    for share in shares:
        assert share.count('route=~"/v1/.*"') == share.count("verisynth_requests_total") == 2


def test_clients_that_leave_are_no_alert(samples: Samples) -> None:
    (alert,) = [text for text in alert_expressions() if "verisynth_cut_answers_total" in text]
    assert set(re.findall(r'reason!="(\w+)"', alert)) == {CLIENT_CLOSED}
    assert value(samples, "verisynth_cut_answers_total", reason=CLIENT_CLOSED) > 0
    assert samples["verisynth_cut_answers_total"][("reason", "model_failure"),] == 0, "no increase without a zero"


def test_every_metric_is_documented_and_shown(samples: Samples) -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    assert [name for name in families(samples) if f"`{name}" not in page] == []
    assert set(families(samples)) == set(families(metric_names(dashboard_expressions())))


def test_every_alert_is_documented_and_tested() -> None:
    alerts = re.findall(r"- alert: (\w+)", (MONITORING / "alerts.yml").read_text())
    page, tests = (path.read_text() for path in (ROOT / "docs" / "monitoring.md", MONITORING / "alerts_test.yml"))
    assert re.findall(r"^\| `(Verisynth\w+)` \|", page, re.MULTILINE) == alerts
    assert set(re.findall(r"alertname: (\w+)", tests)) == set(alerts)


def test_panels_lie_side_by_side() -> None:
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    places = [panel["gridPos"] for panel in panels]
    cells = [
        (column, row)
        for place in places
        for column in range(place["x"], place["x"] + place["w"])
        for row in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(column for column, _ in cells) < GRID_COLUMNS
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments", [["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]], ids=["config", "rules"]
)
def test_promtool_accepts(arguments: list[str]) -> None:
    ended = subprocess.run(["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_exposition(service: Service, samples: Samples) -> None:
    text = httpx.get(f"{service.url}/metrics").text
    ended = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_prometheus_scrapes_the_service_and_knows_its_rules(service: Service, tmp_path: Path) -> None:
    configuration = (MONITORING / "prometheus.yml").read_text()
    configuration = configuration.replace("localhost:3000", service.url.removeprefix("http://")).replace("15s", "1s")
    (tmp_path / "prometheus.yml").write_text(configuration)
    shutil.copy(MONITORING / "alerts.yml", tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = ["prometheus", "--config.file=prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], cwd=tmp_path, stdout=log, stderr=log)
    try:
        query = {"query": "count(verisynth_model_info == 1)"}
        assert _poll(f"http://{address}/api/v1/query", query) == "3"
        rules = httpx.get(f"http://{address}/api/v1/rules").json()["data"]["groups"][0]["rules"]
        assert "VerisynthDown" in [rule["name"] for rule in rules]
    finally:
        process.terminate()
        process.wait(timeout=30)


def _poll(url: str, parameters: dict[str, str], deadline_seconds: float = 40) -> str:
    deadline = time.monotonic() + deadline_seconds
    while time.monotonic() < deadline:
        try:
            result = httpx.get(url, params=parameters).json()["data"]["result"]
        except (httpx.TransportError, KeyError, ValueError):
            result = []
        if result:
            return str(result[0]["value"][1])
        time.sleep(0.2)
    pytest.fail(f"Prometheus has no answer to {parameters}")
