"""Token buckets: how many requests a minute each caller may make of this worker.

A bucket holds a minute's worth of requests and fills evenly, so a caller may be quick for a moment and no faster than
its limit over any longer time.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MAXIMUM_BUCKETS = 10_000


@dataclass
class Bucket:
    """What is left of a caller's minute, at the time `filled`, in seconds of the clock."""

    tokens: float
    filled: float


class Rates:
    """A bucket for each caller that was seen lately, `maximum_buckets` of them at most.

    Of more callers the one unseen for longest is forgotten, and would find a full bucket again: memory is bounded
    before the limit is exact.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, maximum_buckets: int = MAXIMUM_BUCKETS) -> None:
        self._clock = clock
        self._maximum_buckets = maximum_buckets
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, caller: str, requests_per_minute: float) -> float:
        """Seconds until the caller may ask; 0 where it may now, and has been counted. The limit is above 0."""
        now = self._clock()
        # Divided among workers the limit may be less than 1, and a bucket must hold one request to let any pass.
        capacity = max(1.0, requests_per_minute)
        tokens_per_second = requests_per_minute / 60
        bucket = self._buckets.pop(caller, None) or Bucket(capacity, now)
        bucket.tokens = min(capacity, bucket.tokens + (now - bucket.filled) * tokens_per_second)
        bucket.filled = now
        self._buckets[caller] = bucket
        if len(self._buckets) > self._maximum_buckets:
            self._buckets.popitem(last=False)
        # Whoever waited as long as it was told is let in, whatever rounding made of it.
        if bucket.tokens >= 1 - 1e-6:
            bucket.tokens -= 1
            return 0.0
        return (1 - bucket.tokens) / tokens_per_second
