from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from monitoring.metrics import Metrics
from serving.provenance.claims import Origin
from serving.provenance.fingerprint_store import FingerprintStore
from serving.provenance.fingerprints import Match, StoreError
from serving.settings import Settings
from serving.worker import Worker


def test_a_worker_that_retires_writes_down_what_waits(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/fingerprints.db"
    worker = Worker(Settings(models_folder=tmp_path, fingerprints_url=url), Metrics(CollectorRegistry()))
    origin = Origin("waves", "0123456789ab", 1, 1.0, None, None)
    words = np.random.default_rng(0).integers(0, 2**64, (50, 2), dtype=np.uint64)
    assert worker.store is not None
    failures: list[StoreError] = []
    for start in range(50):
        worker.store.remember_later(origin, words[start : start + 1], start, failures.append)
    worker.retire()
    assert failures == []
    assert FingerprintStore(url, 100).nearest(words[49]) == Match(origin, 49, 0)
    assert worker.store._engine.pool.checkedin() == 0  # type: ignore[attr-defined]
