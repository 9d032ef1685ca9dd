"""What the endpoints of one worker process share: the models it has loaded, its keys, its places and threads."""

import functools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio

from contracts.errors import VerisynthError
from contracts.statistics import FEATURES
from monitoring.drift import DriftWindow
from monitoring.metrics import Metrics
from serving.catalogue import Catalogue
from serving.formats import Signing
from serving.models_folder import Change, ModelsFolder
from serving.provenance.claims import STATUSES, ClaimKeys
from serving.provenance.fingerprints import StoreError
from serving.refusals import Refusal
from serving.runtime import Model, ModelError
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.provenance.content_credentials import Credentials
    from serving.provenance.fingerprint_store import FingerprintStore

Answer = TypeVar("Answer")

RETIRE_SECONDS = 5

# Under BentoML's logger, which is set up to be seen: who swaps a release wants to read when it is served.
logger = logging.getLogger("bentoml.worker")


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
        self.windows: Mapping[Model, DriftWindow] = {}
        self.last_change: Change | None = None
        self._models_folder = ModelsFolder(settings.models_folder, settings.require_gpu)
        self._following = threading.Lock()
        self._ending = threading.Event()
        self._watch: threading.Thread | None = None

    def load(self) -> None:
        """Load, check and warm all models; blocks until they are ready."""
        catalogue, change = self._models_folder.look(self.catalogue, everything=True)
        for name, reason in change.refused.items():
            logger.error("release %s is not served: %s", name, reason)
        if catalogue.unreadable:
            logger.error("%s cannot be read: %s", catalogue.folder, catalogue.unreadable)
        self._serve(catalogue)
        if self.store is not None:
            self.store.read_later(functools.partial(self.count_failure, "look_up"))
        for status in STATUSES:
            self.metrics.provenance_checks.labels(status)

    def watch(self) -> None:
        """Follow the models folder from now on, in a thread of its own, until `retire`."""
        if self.settings.reload_seconds > 0:
            self._watch = threading.Thread(target=self._follow_on, name="models folder", daemon=True)
            self._watch.start()

    def retire(self) -> None:
        """End the watch, a release that it is loading gets a few seconds; write down what waits to be written."""
        self._ending.set()
        if self._watch is not None:
            self._watch.join(RETIRE_SECONDS)
        if self.store is not None:
            self.store.close()

    def follow(self, everything: bool = False, signal: bool = False) -> tuple[Change, bool]:
        """Take up what changed in the models folder; blocks while it is loaded, and requests go on.

        With `everything` all releases are verified as they are now; with `signal` other workers are asked to do so.
        What changed, and whether others were asked.
        """
        with self._following:
            catalogue, change = self._models_folder.look(self.catalogue, everything)
            self._serve(catalogue)
            for name, version in change.loaded.items():
                logger.info("%s is served in version %s from now on", name, version)
                self.metrics.reloads.labels(name).inc()
            for name in change.removed:
                logger.info("%s is no longer served: its folder is gone", name)
            for name, reason in change.refused.items():
                served = catalogue.models.get(name)
                stays = f"version {served.version} is served on" if served else "it is not served"
                logger.error("a release of %s is refused, %s: %s", name, stays, reason)
                self.metrics.reload_failures.labels(name).inc()
            if change or everything:
                self.last_change = change
            return change, signal and self._models_folder.signal()

    def _follow_on(self) -> None:
        while not self._ending.wait(self.settings.reload_seconds):
            try:
                self.follow()
            except Exception:
                logger.exception("the models folder cannot be followed; it is tried again")

    def _serve(self, catalogue: Catalogue) -> None:
        """Let requests that begin from now on see another catalogue."""
        before, gone = self.catalogue, set(self.catalogue.models.values()) - set(catalogue.models.values())
        new = [model for model in catalogue.models.values() if model not in self.windows]
        windows = {model: window for model, window in self.windows.items() if model not in gone}
        # A request that sees a model finds its window, one that ends with a model that is gone finds none.
        self.windows = windows | {model: DriftWindow(model.reference, self.settings.drift_window) for model in new}
        self.catalogue = catalogue
        if catalogue.unreadable and not before.unreadable and before.models:
            logger.error("%s cannot be read, what was served is served on: %s", catalogue.folder, catalogue.unreadable)
        self.metrics.refused_releases.set(len(catalogue.refused))
        for model in gone:
            self.metrics.withdraw(model.name, model.version, model.provider)
        for model in new:
            self.metrics.announce(model.name, model.version, model.provider, FEATURES)

    @functools.cached_property
    def _threads(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(self.settings.threads)

    @functools.cached_property
    def _places(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(self.settings.maximum_requests)

    def model(self, name: str | None) -> Model:
        """The model named, or the only one, as it is served now.

        Raises:
            Refusal: as `Catalogue.model` does.
        """
        return self.catalogue.model(name)

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
