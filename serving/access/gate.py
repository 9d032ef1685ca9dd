"""Who may do what: the one table of routes, the keys that open them, and how often.

A path that no rule names is not answered, whatever the application behind would make of it.
"""

import ipaddress
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.datastructures import Headers
from starlette.routing import compile_path
from starlette.types import Scope

from serving.access.exposure import obstacle
from serving.access.keys import PREFIX, SCOPES, Key, KeyRing
from serving.access.rates import Rates
from serving.refusals import Refusal
from serving.settings import Settings

OPEN = "open"
"""Anybody."""
ANY_KEY = "any key"
"""Whoever has a key, whatever its scopes."""
ADMIN = "admin"
ANONYMOUS = "anonymous"


@dataclass(frozen=True)
class Rule:
    """`needs` is OPEN, ANY_KEY, or the scope that a key must have; `path` is a template of Starlette."""

    path: str
    needs: str
    spooled: bool = False
    """Whether bodies go to disk as they arrive, and may be as large as a batch."""


RULES = (
    Rule("/", OPEN),
    Rule("/web/{path:path}", OPEN),
    Rule("/docs", OPEN),
    Rule("/static_content/{path:path}", OPEN),
    Rule("/openapi.json", OPEN),
    Rule("/livez", OPEN),
    Rule("/readyz", OPEN),
    Rule("/metrics", OPEN),
    Rule("/v1/models", ANY_KEY),
    Rule("/v1/models/{name}", ANY_KEY),
    Rule("/v1/models/{name}/card", ANY_KEY),
    Rule("/v1/generate", "generate"),
    Rule("/v1/paint", "generate"),
    Rule("/v1/authenticity", "check"),
    Rule("/v1/authenticity/batch", "check", spooled=True),
    Rule("/v1/collections", "generate"),
    Rule("/v1/collections/{name}/{version}", "generate"),
    Rule("/v1/collections/{name}/{version}/records", "generate"),
    Rule("/v1/collections/{name}/{version}/images/{page}/{file}", "generate"),
    Rule("/v1/collections/{name}/{version}/files/{path:path}", "generate"),
    Rule("/v1/admin/models", ADMIN),
    Rule("/v1/admin/reload", ADMIN),
    Rule("/v1/admin/models/{name}/rollback", ADMIN),
)

HEALTH = ("/livez", "/readyz")
"""What is answered even where nothing else may be: who restarts the service must hear why."""


@dataclass(frozen=True)
class Caller:
    """`name` is the key's id, or `anonymous`; `bucket` is who shares a limit with it. A limit of 0 is none."""

    name: str
    scopes: tuple[str, ...]
    bucket: str
    requests_per_minute: int


class Gate:
    """Lets a request in or refuses it, by its path and headers alone, before any of its body is read."""

    def __init__(self, settings: Settings, rules: Sequence[Rule] = RULES) -> None:
        self._settings = settings
        self._rules = [(compile_path(rule.path)[0], rule) for rule in rules]
        self._keys: KeyRing | None = None
        self._rates = Rates()
        self._exposure: str | None = "the service is starting"

    def load(self, hosts: Sequence[str]) -> None:
        """Read the keys and weigh the addresses that the service listens on."""
        if self._settings.keys_file is not None:
            self._keys = KeyRing(self._settings.keys_file)
        self._exposure = obstacle(self._settings, hosts)

    @property
    def obstacle(self) -> str | None:
        """Why nothing but health is answered; None where there is no reason."""
        return self._exposure or (self._keys.obstacle if self._keys else None)

    def rule_of(self, path: str) -> Rule | None:
        """The first rule whose template the path fits; None where there is none."""
        return next((rule for pattern, rule in self._rules if pattern.fullmatch(path)), None)

    def identify(self, scope: Scope, rule: Rule) -> Caller:
        """Who asks.

        Raises:
            Refusal: `not_ready`, `unauthorized`.
        """
        if rule.path not in HEALTH and (reason := self.obstacle):
            raise Refusal("not_ready", reason)
        if self._keys is None or rule.needs == OPEN:
            if rule.needs == ADMIN:
                # A page of another site that a browser on this machine shows could ask, too.
                raise _unauthorized("this route always needs a key of scope admin; name a file in VERISYNTH_KEYS_FILE")
            return self._anonymous(scope)
        presented = _presented(Headers(scope=scope))
        if presented is None:
            raise _unauthorized("this route needs a key; send it as `Authorization: Bearer vs_...` or as `X-API-Key`")
        key = self._keys.find(presented)
        if key is None:
            raise _unauthorized("the key is not known; ask the operator for one")
        if key.expired(datetime.now(UTC)):
            raise _unauthorized(f"the key {key.id} has expired; ask the operator for a new one")
        return self._caller(key)

    def admit(self, caller: Caller, rule: Rule) -> None:
        """Let the caller in, and count it.

        Raises:
            Refusal: `forbidden`, `rate_limited`.
        """
        if rule.needs not in (OPEN, ANY_KEY, *caller.scopes):
            raise Refusal(
                "forbidden", f"the key {caller.name} has scope {', '.join(caller.scopes)}; this needs {rule.needs}"
            )
        if rule.needs == OPEN or caller.requests_per_minute == 0:
            return
        wait_seconds = self._rates.take(caller.bucket, caller.requests_per_minute / self._settings.workers)
        if wait_seconds > 0:
            wait = str(math.ceil(wait_seconds))
            message = f"{caller.name} may make {caller.requests_per_minute} requests a minute; ask again in {wait} s"
            raise Refusal("rate_limited", message, {"Retry-After": wait})

    def _caller(self, key: Key) -> Caller:
        limit = self._settings.requests_per_minute if key.requests_per_minute is None else key.requests_per_minute
        return Caller(key.id, key.scopes, f"key {key.id}", limit)

    def _anonymous(self, scope: Scope) -> Caller:
        scopes = tuple(name for name in SCOPES if name != ADMIN)
        return Caller(ANONYMOUS, scopes, f"address {_network(scope)}", self._settings.requests_per_minute)


def _presented(headers: Headers) -> str | None:
    """What the client sends as its key: `Authorization`, unless that is a proxy's own and the key stands beside it."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    beside = headers.get("x-api-key")
    if scheme.lower() == "bearer" and (beside is None or credentials.strip().startswith(PREFIX)):
        return credentials.strip()
    return beside


def _network(scope: Scope) -> str:
    """Where a request comes from: an IPv4 address, or the /64 of an IPv6 address, all of which one host may use."""
    host = (scope.get("client") or ("",))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # Not told, or made up by whoever wrote X-Forwarded-For.
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return str(address)


def _unauthorized(message: str) -> Refusal:
    return Refusal("unauthorized", message, {"WWW-Authenticate": "Bearer"})
