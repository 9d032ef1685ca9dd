"""Answers that are made while they are sent.

Their head goes out with the first piece: what is refused before it is refused as anywhere, with an envelope. What fails
later is `CutOff`: the connection ends without the end of the answer, so that no client can take it for whole.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.refusals import CutOff, Refusal

Answer = TypeVar("Answer")
Emit = Callable[[bytes], Awaitable[None]]
"""Sends a piece of an answer, and returns when the next one can be taken: who reads slowly is waited for."""


class Stream(Response):
    """A response whose body `write` makes: it is called with an `Emit`, once, and emits at least one piece."""

    def __init__(
        self, write: Callable[[Emit], Awaitable[None]], media_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        # Not Starlette's own: that one sends the head first.
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.init_headers(headers)
        self._write = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        begun = False

        async def emit(piece: bytes) -> None:
            nonlocal begun
            if not begun:
                begun = True
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        try:
            await self._write(emit)
        except Refusal as refusal:
            if begun:
                raise CutOff(refusal.code) from refusal
            raise
        assert begun, "an answer has at least one piece"
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def in_order(
    calls: Iterable[Callable[[], Awaitable[Answer]]],
    ahead: Callable[[], int],
    take: Callable[[Answer], Awaitable[None]],
) -> None:
    """Make the calls side by side, and `take` their answers in order, one at a time.

    While one is taken, at most `ahead()` others are made or wait to be taken. The first that raises ends all.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        waiting: deque[_Pending[Any]] = deque()
        left = iter(calls)

        def begin() -> None:
            for call in islice(left, max(0, ahead() - len(waiting))):
                waiting.append(_Pending(call))
                tasks.start_soon(waiting[-1].run)

        try:
            begin()
            while waiting:
                answer = await waiting[0].answer()
                waiting.popleft()
                begin()
                await take(answer)
        # Raised here, it would come out as a group of errors.
        except Exception as error:
            failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


@dataclass
class _Pending(Generic[Answer]):
    call: Callable[[], Awaitable[Answer]]
    _done: anyio.Event = field(default_factory=anyio.Event)
    _answer: Answer | None = None
    _error: Exception | None = None

    async def run(self) -> None:
        try:
            self._answer = await self.call()
        except Exception as error:
            self._error = error
        self._done.set()

    async def answer(self) -> Answer:
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._answer  # type: ignore[return-value]
