from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest
from starlette.types import Message

from serving.refusals import CutOff, Refusal
from serving.streams import Emit, Stream, in_order


async def number(value: int) -> int:
    return value


def test_answers_are_taken_in_order_whatever_is_done_first() -> None:
    async def scenario() -> None:
        later = [anyio.Event() for _ in range(4)]
        taken: list[int] = []

        async def made(position: int) -> int:
            if position + 1 < len(later):
                await later[position + 1].wait()
            later[position].set()
            return position

        async def take(answer: int) -> None:
            taken.append(answer)

        await in_order([partial(made, position) for position in range(4)], lambda: 4, take)
        assert taken == [0, 1, 2, 3]

    anyio.run(scenario)


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_is_made_than_is_taken_soon(ahead: int) -> None:
    async def scenario() -> None:
        begun: list[int] = []

        async def made(position: int) -> int:
            begun.append(position)
            return position

        async def take(answer: int) -> None:
            # Whatever can be made meanwhile is.
            await anyio.wait_all_tasks_blocked()
            assert begun == list(range(min(10, answer + 1 + ahead)))

        await in_order((partial(made, position) for position in range(10)), lambda: ahead, take)
        assert begun == list(range(10))

    anyio.run(scenario)


@pytest.mark.parametrize("in_take", [False, True])
def test_the_first_failure_ends_all_and_comes_out_bare(in_take: bool) -> None:
    async def scenario() -> None:
        ended: list[str] = []

        async def broken() -> int:
            if in_take:
                return 0
            raise ZeroDivisionError

        async def endless() -> int:
            try:
                await anyio.sleep_forever()
            finally:
                ended.append("endless")
            return 1

        async def take(_: int) -> None:
            await anyio.wait_all_tasks_blocked()
            raise ZeroDivisionError

        calls: list[Callable[[], Awaitable[int]]] = [broken, endless]
        with pytest.raises(ZeroDivisionError):
            await in_order(calls, lambda: 2, take)
        assert ended == ["endless"]

    anyio.run(scenario)


def sent_by(write: Callable[[Emit], Awaitable[None]]) -> tuple[list[Message], Exception | None]:
    messages: list[Message] = []
    failures: list[Exception] = []

    async def scenario() -> None:
        async def send(message: Message) -> None:
            messages.append(message)

        async def receive() -> Message:
            return await anyio.sleep_forever()  # type: ignore[return-value]

        try:
            await Stream(write, "text/plain", {"X-A": "b"})({"type": "http"}, receive, send)
        except Exception as error:
            failures.append(error)

    anyio.run(scenario)
    return messages, failures[0] if failures else None


def test_the_head_goes_out_with_the_first_piece() -> None:
    async def write(emit: Emit) -> None:
        await emit(b"one")
        await emit(b"two")

    messages, failure = sent_by(write)
    assert failure is None
    assert messages[0]["type"] == "http.response.start"
    assert (b"x-a", b"b") in messages[0]["headers"]
    assert not any(name == b"content-length" for name, _ in messages[0]["headers"])
    assert [(message["body"], message["more_body"]) for message in messages[1:]] == [
        (b"one", True),
        (b"two", True),
        (b"", False),
    ]


def test_what_is_refused_before_the_first_piece_is_refused() -> None:
    async def write(_: Emit) -> None:
        raise Refusal("model_failure", "broken")

    messages, failure = sent_by(write)
    assert (messages, type(failure)) == ([], Refusal)


def test_what_is_refused_later_cuts_the_answer_off() -> None:
    async def write(emit: Emit) -> None:
        await emit(b"one")
        raise Refusal("model_failure", "broken")

    messages, failure = sent_by(write)
    assert isinstance(failure, CutOff)
    assert failure.code == "model_failure"
    assert messages[-1]["more_body"] is True
