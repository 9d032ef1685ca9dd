"""What the endpoints of one worker process share: the models it has loaded, its keys, its places and threads."""

import functools
import logging
import reprlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio

from contracts.errors import VerisynthError
from contracts.statistics import FEATURES
from monitoring.drift import DriftWindow
from monitoring.metrics import Metrics
from serving.formats import Signing
from serving.provenance.claims import STATUSES, ClaimKeys
from serving.provenance.fingerprints import StoreError
from serving.refusals import Refusal
from serving.runtime import Catalogue, Model, ModelError
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.provenance.content_credentials import Credentials
    from serving.provenance.fingerprint_store import FingerprintStore

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class Worker:
    """One process of the service: how its endpoints come by models, and by threads to run them in."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Read the keys that `settings` names; no database is connected yet.

        Raises:
            VerisynthError: for keys that cannot be read, or a database of fingerprints that cannot be used.
        """
        self.settings = settings
        self.metrics = metrics
        self.catalogue = Catalogue(settings.models_folder)
        self.keyring = ClaimKeys.load(settings.signing_key_file, settings.trusted_keys_folder)
        self.signing = Signing(self.keyring, _credentials(settings))
        self.store = _store(settings)
        self.windows: dict[str, DriftWindow] = {}

    def load(self) -> None:
        """Load, check and warm all models; blocks until they are ready."""
        self.catalogue = Catalogue.load(self.settings.models_folder, self.settings.require_gpu)
        self.metrics.refused_releases.set(len(self.catalogue.refused))
        if self.store is not None:
            self.store.read_later(functools.partial(self.count_failure, "look_up"))
        for status in STATUSES:
            self.metrics.provenance_checks.labels(status)
        for model in self.catalogue.models.values():
            self.metrics.announce(model.name, model.version, model.provider, FEATURES)
            self.windows[model.name] = DriftWindow(model.reference, self.settings.drift_window)

    def close(self) -> None:
        """Write down what waits to be written, and let go of the database."""
        if self.store is not None:
            self.store.close()

    @functools.cached_property
    def _threads(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(self.settings.threads)

    @functools.cached_property
    def _places(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(self.settings.maximum_requests)

    def models(self, name: str | None) -> list[Model]:
        """The model named, or all.

        Raises:
            Refusal: as `model` does.
        """
        if name is None and self.catalogue.models:
            return list(self.catalogue.models.values())
        return [self.model(name)]

    def model(self, name: str | None) -> Model:
        """The model named, or the only one.

        Raises:
            Refusal: `not_ready`, `model_required`, `model_refused`, `unknown_model`.
        """
        models, refused = self.catalogue.models, self.catalogue.refused
        if self.catalogue.obstacle:
            raise Refusal("not_ready", self.catalogue.obstacle)
        if name is None:
            if len(models) > 1:
                raise Refusal("model_required", f"several models are served; name one of {', '.join(models)}")
            return next(iter(models.values()))
        if name in refused:
            raise Refusal("model_refused", f"{name} is not served: {refused[name]}")
        if name not in models:
            raise Refusal(
                "unknown_model", f"there is no model {reprlib.repr(name)}; the models are {', '.join(models)}"
            )
        return models[name]

    def check_places(self) -> None:
        """Refuse before the body is read where it would be read in vain."""
        if self._places.available_tokens < 1:
            raise self._overloaded()

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """A place among the requests in hand, taken when the body is there: who sends slowly holds none."""
        try:
            self._places.acquire_nowait()
        except anyio.WouldBlock as error:
            raise self._overloaded() from error
        try:
            yield
        finally:
            self._places.release()

    def _overloaded(self) -> Refusal:
        return Refusal("overloaded", f"{self.settings.maximum_requests} requests are already being answered; try again")

    def ahead(self) -> int:
        """How many parts of one answer are made before it takes them: enough for all threads to have work.

        The more requests there are to give them work the fewer, so that slow readers do not add up.
        """
        return max(1, self.settings.threads + 2 - self._places.borrowed_tokens)

    async def in_thread(self, call: Callable[[], Answer]) -> Answer:
        """The answer of a call that computes, in one of the threads that all requests share.

        Raises:
            Refusal: `model_failure`.
        """
        try:
            return await anyio.to_thread.run_sync(call, limiter=self._threads)
        except ModelError as error:
            logger.exception("a model failed")
            raise Refusal("model_failure", str(error)) from error

    async def side_by_side(self, calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
        """The answers of all calls, in order, each made in a thread; a timed-out request ends after those in hand."""
        answers: dict[int, Answer] = {}

        async def run(position: int, call: Callable[[], Answer]) -> None:
            answers[position] = await self.in_thread(call)

        try:
            async with anyio.create_task_group() as group:
                for position, call in enumerate(calls):
                    group.start_soon(run, position, call)
        except* Refusal as refused:
            raise refused.exceptions[0] from None
        return [answers[position] for position in range(len(calls))]

    def count_failure(self, operation: str, error: StoreError) -> None:
        """Tell of a store that failed where the request goes on without it."""
        logger.warning("fingerprints, %s: %s", operation, error)
        self.metrics.fingerprint_failures.labels(operation).inc()


def _credentials(settings: Settings) -> "Credentials | None":
    """The Content Credentials that `settings` names; their library is an extra, and imported only here."""
    certificates_file, key_file = settings.c2pa_certificates_file, settings.c2pa_key_file
    if certificates_file is None and key_file is None:
        return None
    if certificates_file is None or key_file is None:
        raise VerisynthError("VERISYNTH_C2PA_CERTIFICATES_FILE and VERISYNTH_C2PA_KEY_FILE go together; name both")
    try:
        from serving.provenance.content_credentials import Credentials
    except ModuleNotFoundError as error:
        raise VerisynthError(
            f"VERISYNTH_C2PA_CERTIFICATES_FILE is set, and {error.name} is not installed; install the extra `c2pa`"
        ) from error
    return Credentials.load(certificates_file, key_file)


def _store(settings: Settings) -> "FingerprintStore | None":
    """The store that `settings` names; its library is an extra, and imported only here."""
    if not settings.fingerprints_url:
        if settings.fingerprints_required:
            raise VerisynthError(
                "VERISYNTH_FINGERPRINTS_REQUIRED is true, and VERISYNTH_FINGERPRINTS_URL names no database; name one"
            )
        return None
    try:
        from serving.provenance.fingerprint_store import FingerprintStore
    except ModuleNotFoundError as error:
        raise VerisynthError(
            f"VERISYNTH_FINGERPRINTS_URL is set, and {error.name} is not installed; install the extra `fingerprints`"
        ) from error
    return FingerprintStore(settings.fingerprints_url, settings.fingerprints_maximum)
