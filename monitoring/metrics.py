"""The metrics of the service, and their exposition across worker processes.

Every name, its labels and its meaning are told in `docs/monitoring.md`. Label values are bounded: models
served, verdicts, refusal codes, route templates; never a path or a value that a client chose.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from contracts.manifest import VERDICTS

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
PROBABILITIES = tuple(step / 20 for step in range(1, 21))
MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
MODEL_INFO = "verisynth_model_info"
RELOADS = ("verisynth_reloads", "verisynth_reload_failures")
"""Families that tell of releases whether they are served or not; counters lose their `_total`."""


class Metrics:
    """All metrics of one process, registered in `registry`.

    Gauges name how the values of several workers become one: the largest, or the one set last.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.generated_images = Counter(
            "verisynth_generated_images_total", "Images generated.", ["model"], registry=registry
        )
        self.authenticity_checks = Counter(
            "verisynth_authenticity_checks_total", "Images judged.", ["model", "verdict"], registry=registry
        )
        self.provenance_checks = Counter(
            "verisynth_provenance_checks_total",
            "Images judged, by what their mark of origin is worth.",
            ["status"],
            registry=registry,
        )
        self.fingerprint_failures = Counter(
            "verisynth_fingerprint_failures_total",
            "Requests whose fingerprints could not be written or looked up.",
            ["operation"],
            registry=registry,
        )
        for operation in ("write", "look_up"):
            self.fingerprint_failures.labels(operation)
        self.synthetic_probability = Histogram(
            "verisynth_synthetic_probability",
            "Calibrated probability that a judged image is synthetic.",
            ["model"],
            buckets=PROBABILITIES,
            registry=registry,
        )
        self.inference_seconds = Histogram(
            "verisynth_inference_seconds",
            "Time in the runtime: kinds generate and paint are one batch, kind judge is one image.",
            ["model", "kind"],
            buckets=SECONDS,
            registry=registry,
        )
        self.requests = Counter(
            "verisynth_requests_total", "HTTP requests answered.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "verisynth_request_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.rejected_requests = Counter(
            "verisynth_rejected_requests_total", "Requests refused, by error code.", ["reason"], registry=registry
        )
        self.cut_answers = Counter(
            "verisynth_cut_answers_total",
            "Answers that had begun and were not finished.",
            ["reason"],
            registry=registry,
        )
        self.audit_failures = Counter(
            "verisynth_audit_failures_total", "Requests that the audit log could not be told of.", registry=registry
        )
        self.input_drift = Gauge(
            "verisynth_input_drift",
            "Population stability index of recent uploads against real validation images; 0 until enough were seen.",
            ["model", "feature"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self.model_info = Gauge(
            MODEL_INFO,
            "1 for each model served.",
            ["model", "version", "provider"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.reloads = Counter(
            "verisynth_reloads_total", "Releases taken up while the service ran.", ["model"], registry=registry
        )
        self.reload_failures = Counter(
            "verisynth_reload_failures_total",
            "Releases refused while the service ran; what served before served on.",
            ["model"],
            registry=registry,
        )
        self.refused_releases = Gauge(
            "verisynth_refused_releases",
            "Release folders whose release is not served because it is incomplete, altered or does not run.",
            multiprocess_mode="livemax",
            registry=registry,
        )

    def announce(self, model: str, version: str, provider: str, features: tuple[str, ...]) -> None:
        """Start the series of a model at zero, so that the first event already counts as an increase."""
        self.model_info.labels(model, version, provider).set(1)
        self.generated_images.labels(model)
        self.synthetic_probability.labels(model)
        self.reloads.labels(model)
        self.reload_failures.labels(model)
        for verdict in VERDICTS:
            self.authenticity_checks.labels(model, verdict)
        for kind in ("generate", "judge"):
            self.inference_seconds.labels(model, kind)
        for feature in features:
            self.input_drift.labels(model, feature).set(0)

    def withdraw(self, model: str, version: str, provider: str) -> None:
        """Tell that this process serves a version no more; its series go when no process does.

        Nothing can be taken out of the files of several processes, so a zero stands for it.
        """
        self.model_info.labels(model, version, provider).set(0)

    def exposition(self) -> bytes:
        """Prometheus text of all worker processes, or of this one where there are no others."""
        if MULTIPROCESS_FOLDER not in os.environ:
            return generate_latest(_Served(self.registry))
        _retire_dead(Path(os.environ[MULTIPROCESS_FOLDER]))
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(_Served(together))

    def retire(self) -> None:
        """Take the gauges of this ending process out of the exposition; its counts stay."""
        if MULTIPROCESS_FOLDER in os.environ:
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


def _retire_dead(folder: Path) -> None:
    """Take the gauges of processes that were killed out of the exposition: their models are served no more."""
    for process in {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*_*.db")}:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            mark_process_dead(process)  # type: ignore[no-untyped-call]
        except PermissionError:
            # Alive, and somebody else's.
            pass


class _Served:
    """What a registry collects, without the series of models and versions that no process serves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        families = list(self._registry.collect())
        info = [sample for family in families if family.name == MODEL_INFO for sample in family.samples]
        served = {sample.labels["model"] for sample in info if sample.value}
        for family in families:
            if family.name == MODEL_INFO:
                family.samples = [sample for sample in family.samples if sample.value]
            elif family.name not in RELOADS:
                family.samples = [
                    sample
                    for sample in family.samples
                    if "model" not in sample.labels or sample.labels["model"] in served
                ]
            yield family
