"""An ASGI application asked without a server, by a client that does what clients do: read slowly, or leave."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
from starlette.types import ASGIApp, Message


@dataclass
class Conversation:
    """One request, and what of the answer was taken."""

    path: str
    body: bytes
    media_type: str = "application/json"
    pieces: int | None = None
    """So many pieces of the answer are taken; None: all."""
    leaves: bool = False
    """Whether the client hangs up then; else it stays and reads no more."""
    on_piece: Callable[["Conversation"], None] = lambda _: None
    sent: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def content(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", True)

    async def ask(self, application: ASGIApp) -> "Conversation":
        """Ask, and return when the application has done all that it does."""
        left = anyio.Event()
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": self.body, "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if left.is_set():
                return
            if self.pieces is not None and len(self.sent) > self.pieces:
                if not self.leaves:
                    await anyio.sleep_forever()
                left.set()
                await anyio.lowlevel.checkpoint()
                return
            self.sent.append(message)
            if message.get("body"):
                self.on_piece(self)

        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": self.path,
            "query_string": b"",
            "headers": [(b"content-type", self.media_type.encode())],
        }
        await application(scope, receive, send)
        return self
