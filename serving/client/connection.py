"""A service over HTTP, asked until it answers.

Lost connections and the statuses 429, 502 and 503 are worth another try, after a pause that grows, differs between
clients, and is at least what `Retry-After` says. Anything else is a `ServiceError` at once. A request is sent again as
it was, under the same request id, and every one may be: checks change nothing, and the same seed gives the same images.
"""

import io
import itertools
import logging
import random
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import sleep
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

from contracts.errors import VerisynthError

RETRIED_STATUSES = (429, 502, 503)
# A release that was refused is refused until somebody mends it.
FINAL_CODES = ("model_refused",)
LOST = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.TimeoutException)
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0
# The operating system's: forked processes would share the state of any other.
CHANCE = random.SystemRandom()
KEY = re.compile(r"[!-~]+")

logger = logging.getLogger(__name__)


class ServiceError(VerisynthError):
    """A request without the answer that was wanted.

    `code` and `message` are the service's own (`/docs` lists the codes), or `unreachable` where there was no answer and
    `unexpected_answer` where it is not one of Verisynth's. `status` is the HTTP status, None without an answer.
    `request_id` is what the service's log calls the request.
    """

    def __init__(self, code: str, message: str, request_id: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.request_id = request_id
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes hand their errors on pickled.
        return type(self), (self.code, self.message, self.request_id, self.status)


class Connection:
    """What every request has in common: address, key, patience. May be used by several threads, not across a fork."""

    def __init__(self, url: str, key: str | None, timeout_seconds: float, retries: int) -> None:
        """`timeout_seconds` bounds every silence of the service; `retries` is how often a request is sent again.

        Raises:
            VerisynthError: for an address or a key that cannot be one; a key is not repeated.
        """
        self.url = checked_url(url)
        self.retries = retries
        if key is not None and not KEY.fullmatch(key):
            raise VerisynthError("the key is empty or holds spaces or characters that no key has; paste it again")
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_seconds)

    def ask(
        self, method: str, path: str, content: Mapping[str, Any] | None = None, sink: BinaryIO | None = None
    ) -> httpx.Response:
        """The answer to one request, whole; `content` is httpx's `json`, `files` and `data`.

        With a `sink` the body is streamed into it and the answer carries none; what a broken try left in it is cut off.

        Raises:
            ServiceError: where the service refuses, or does not answer after all tries.
        """
        return self._persist(method, path, lambda request_id: self._send(method, path, request_id, content or {}, sink))

    def download(self, path: str, sink: BinaryIO, etag: str, progress: Callable[[int], None]) -> None:
        """Go on with a file where `sink` ends, as long as it is the file of that ETag, until all of it is there.

        A sink of other content is begun anew. `progress` is told how many more bytes are there. Tries are counted from
        the last one that brought anything.

        Raises:
            ServiceError: as `ask`; what has come stays.
        """
        while True:
            before = sink.seek(0, io.SEEK_END)
            try:
                self._persist("GET", path, lambda request_id: self._send_rest(path, request_id, sink, etag, progress))
            except ServiceError as error:
                if error.status is not None or sink.seek(0, io.SEEK_END) <= before:
                    raise
            else:
                return

    def _persist(self, method: str, path: str, send: Callable[[str], httpx.Response]) -> httpx.Response:
        """The answer to a request that is sent, with its id, until there is one."""
        request_id = uuid.uuid4().hex
        for attempt in itertools.count():
            told: float | None = None
            try:
                answer = send(request_id)
            except LOST as error:
                failure = self._unreachable(error, request_id)
            except httpx.HTTPError as error:
                raise self._unreachable(error, request_id) from error
            else:
                if answer.is_success:
                    return answer
                failure = _refusal(answer, self.url, request_id)
                if failure.status not in RETRIED_STATUSES or failure.code in FINAL_CODES:
                    raise failure
                told = retry_after_seconds(answer.headers.get("retry-after", ""), datetime.now(UTC))
            pause = pause_seconds(attempt, told, CHANCE.random())
            if attempt >= self.retries or pause is None:
                raise failure
            logger.info("%s %s: %s; trying again in %.1f s", method, path, failure.code, pause)
            sleep(pause)
        raise AssertionError("unreachable: tries are counted above")

    def close(self) -> None:
        self._http.close()

    def _send(
        self, method: str, path: str, request_id: str, content: Mapping[str, Any], sink: BinaryIO | None
    ) -> httpx.Response:
        with self._http.stream(method, path, headers={"X-Request-ID": request_id}, **content) as answer:
            if sink is None or not answer.is_success:
                answer.read()
            else:
                sink.seek(0)
                sink.truncate()
                for data in answer.iter_bytes():
                    sink.write(data)
            return answer

    def _send_rest(
        self, path: str, request_id: str, sink: BinaryIO, etag: str, progress: Callable[[int], None]
    ) -> httpx.Response:
        start = sink.seek(0, io.SEEK_END)
        # As it lies there: ranges of what a proxy compressed on the way would be others.
        headers = {"X-Request-ID": request_id, "Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": etag}
        with self._http.stream("GET", path, headers=headers) as answer:
            if not answer.is_success:
                answer.read()
                return answer
            if answer.status_code != httpx.codes.PARTIAL_CONTENT:
                progress(-start)
                sink.truncate(0)
            for data in answer.iter_bytes():
                sink.write(data)
                progress(len(data))
            return answer

    def _unreachable(self, error: httpx.HTTPError, request_id: str) -> ServiceError:
        reason = str(error) or type(error).__name__
        return ServiceError("unreachable", f"no answer from {self.url}: {reason}", request_id)


def checked_url(text: str) -> str:
    """The service's address, such as `http://localhost:3000`; a path before the routes is kept.

    Raises:
        VerisynthError: for what is no address of HTTP, and for one that holds a password: it would stand in messages.
    """
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError) as error:
        raise VerisynthError(f"the address of the service is no URL ({error}); it looks like {EXAMPLE_URL}") from error
    if url.userinfo:
        raise VerisynthError("the address of the service holds a user name or a password; give a key instead")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise VerisynthError(f"the address of the service is {text!r}; it looks like {EXAMPLE_URL}")
    return str(url).rstrip("/")


def quoted(path: str) -> str:
    """A name or a path as part of an address; slashes stay."""
    return quote(path, safe="/")


EXAMPLE_URL = "http://localhost:3000"


def retry_after_seconds(text: str, now: datetime) -> float | None:
    """What a `Retry-After` header asks for, in seconds or as a date; None where it says nothing that can be read."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(0.0, (date - now).total_seconds())
    except (ValueError, OverflowError):
        return None


def pause_seconds(attempt: int, told: float | None, chance: float) -> float | None:
    """How long to wait after the try `attempt`, from 0 on; None where the service asks for more than we would wait.

    The pause doubles from try to try. `chance` in [0, 1) spreads clients that failed together; what the service `told`
    is never cut short.
    """
    backoff = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 30))
    if told is None:
        return backoff * (0.5 + chance / 2)
    return told + backoff * chance if told <= LONGEST_PAUSE_SECONDS else None


def _refusal(answer: httpx.Response, url: str, request_id: str) -> ServiceError:
    """The error in an answer's envelope, or that there is none."""
    try:
        error = answer.json()["error"]
        code, message, told_id = (error[name] for name in ("code", "message", "request_id"))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        code = message = told_id = None
    if not (isinstance(code, str) and isinstance(message, str) and isinstance(told_id, str)):
        message = f"{url} answered {answer.status_code} and no error of Verisynth; is it the address of the service?"
        return ServiceError("unexpected_answer", message, request_id, answer.status_code)
    return ServiceError(code, message, told_id, answer.status_code)
