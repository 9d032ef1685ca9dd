"""The BentoML service: processes, health and limits around the endpoints of `serving.routes`.

bentoml serve serving.service:Verisynth --port 3000
"""

import os

import bentoml
from bentoml.exceptions import BentoMLConfigException
from prometheus_client import REGISTRY
from starlette.exceptions import HTTPException

from contracts.errors import VerisynthError
from monitoring.metrics import Metrics
from serving.edge import Edge
from serving.routes import Endpoints
from serving.settings import Settings

# BentoML imports this module to learn what to serve: it is the one place where importing does something.
try:
    settings = Settings.from_environment(os.environ)
except VerisynthError as error:
    raise BentoMLConfigException(str(error)) from error
metrics = Metrics(REGISTRY)
endpoints = Endpoints(settings, metrics)


@bentoml.service(
    name="verisynth",
    workers=settings.workers,
    # The edge has its own deadline, with our error envelope; BentoML's is the second line.
    traffic={"timeout": settings.timeout_seconds + 30},
    # BentoML's metrics take the path as a label, so any client could make new series without end; and its access
    # log breaks on a content type that is not UTF-8. The edge counts and logs instead.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    # BentoML makes spans of every request and throws them away where no exporter is named: a quarter of a millisecond.
    # A BENTOML_CONFIG that names one says `excluded_urls` too.
    tracing={"excluded_urls": ".*"},
)
@bentoml.asgi_app(endpoints.application(), path="/")
class Verisynth:
    """Makes synthetic bioimages and tells synthetic from real ones."""

    def __init__(self) -> None:
        endpoints.load()

    def __is_ready__(self) -> bool:
        if endpoints.catalogue.obstacle:
            raise HTTPException(503, endpoints.catalogue.obstacle)
        return True

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def retire(self) -> None:
        metrics.retire()


Verisynth.add_asgi_middleware(Edge, settings=settings, metrics=metrics)  # type: ignore[attr-defined]
