"""The BentoML service: processes, health and limits around the routes of `serving.routes`.

bentoml serve serving.service:Verisynth --port 3000
"""

import logging
import os
import warnings

import bentoml

# Nothing public tells what BentoML listens on where nobody says so.
from bentoml._internal.container import BentoMLContainer
from bentoml.exceptions import BentoMLConfigException
from prometheus_client import REGISTRY
from starlette.exceptions import HTTPException

from contracts.errors import VerisynthError
from monitoring.metrics import Metrics
from serving.access.audit import check_file
from serving.access.exposure import listening_hosts, obstacle, requested_hosts
from serving.access.gate import Gate
from serving.access.keys import read_keys
from serving.edge import Edge
from serving.routes import application
from serving.settings import Settings
from serving.worker import Worker

# BentoML imports this module to learn what to serve: it is the one place where importing does something.
try:
    settings = Settings.from_environment(os.environ)
    metrics = Metrics(REGISTRY)
    worker = Worker(settings, metrics)
except VerisynthError as error:
    raise BentoMLConfigException(str(error)) from error
gate = Gate(settings)


@bentoml.service(
    name="verisynth",
    workers=settings.workers,
    # The edge has its own deadline, with our error envelope; BentoML's is the second line.
    traffic={"timeout": settings.longest_body_seconds + settings.timeout_seconds + 30},
    # BentoML's metrics take the path as a label, so any client could make new series without end; and its access
    # log breaks on a content type that is not UTF-8. The edge counts and logs instead.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    # BentoML makes spans of every request and throws them away where no exporter is named: a quarter of a millisecond.
    # A BENTOML_CONFIG that names one says `excluded_urls` too.
    tracing={"excluded_urls": ".*"},
)
@bentoml.asgi_app(application(worker), path="/")
class Verisynth:
    """Makes synthetic bioimages and tells synthetic from real ones."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def check_start() -> None:
        """Once, before any worker: what must not be started is refused by name."""
        try:
            if settings.keys_file is not None:
                read_keys(settings.keys_file)
            if settings.audit_file is not None:
                check_file(settings.audit_file)
        except VerisynthError as error:
            raise BentoMLConfigException(str(error)) from error
        hosts = requested_hosts(default=BentoMLContainer.http.host.get())
        if hosts and (reason := obstacle(settings, hosts)):
            raise BentoMLConfigException(reason)

    def __init__(self) -> None:
        # Decoders warn of broken files in the words of these files, and Python remembers each warning for good.
        for library in ("PIL", "pydicom"):
            logging.getLogger(library).setLevel(logging.CRITICAL)
            warnings.filterwarnings("ignore", module=rf"{library}\.")
        gate.load(listening_hosts())
        worker.load()
        worker.watch()

    def __is_ready__(self) -> bool:
        if reason := gate.obstacle or worker.catalogue.obstacle:
            raise HTTPException(503, reason)
        return True

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def retire(self) -> None:
        worker.retire()
        metrics.retire()


Verisynth.add_asgi_middleware(Edge, settings=settings, metrics=metrics, gate=gate)  # type: ignore[attr-defined]
