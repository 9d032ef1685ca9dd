"""Faults and load against a running service, as a table for docs/reliability.md.

    make soak                                        # everything, some ten minutes
    python -m tests.soak load --seconds 600          # one part, for longer

Each part starts a service of its own on small releases, keeps clients asking mixed questions, does harm, and counts
what became of every single request. An answer is *lost* where a client got neither a right answer nor a refusal that
the documentation promises. Two things are counted apart, which clients answer by another try (`serving.client` does): a
connection that *broke*, since no service can answer from a process that was killed, and *nobody* taking it: refused, or
reset in the queue of a service that was told to end before the request began.
"""

import argparse
import collections
import io
import itertools
import math
import os
import resource
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from contracts.imaging import encode_png
from contracts.manifest import GENERATOR
from serving.access.audit import verify
from tests.releases import promote, real_images, write_small_release
from tests.services import Service, serve

PROMISED = {429, 503}
BROKEN, NOBODY = "broken", "nobody"
RESTART_SECONDS = 60


@dataclass
class Row:
    """One line of the table."""

    what: str
    times: int
    requests: int
    answered: int
    refused: int
    broken: int
    nobody: int
    lost: int
    remarks: str = ""


@dataclass
class Load:
    """Clients that ask mixed questions until they are stopped, and what they got."""

    service: Service
    clients: int
    seconds_by_route: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    ended_at: float = math.inf
    """When the service was told to end, by `time.perf_counter`."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator["Load"]:
        """The load during the block, and until every request in hand has ended."""
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    @property
    def total(self) -> int:
        return sum(self.outcomes.values())

    def row(self, what: str, times: int, remarks: str = "") -> Row:
        refused = sum(count for outcome, count in self.outcomes.items() if outcome.isdigit())
        return Row(
            what,
            times,
            self.total,
            answered=self.outcomes["right"],
            refused=refused,
            broken=self.outcomes[BROKEN],
            nobody=self.outcomes[NOBODY],
            lost=len(self.wrong),
            remarks=remarks,
        )

    def add(self, other: "Load") -> None:
        """Count what others got, too."""
        self.outcomes.update(other.outcomes)
        self.wrong += other.wrong

    def _ask(self, number: int) -> None:
        image = encode_png(real_images(1, seed=number)[0])
        with httpx.Client(base_url=self.service.url, timeout=30) as client:
            questions: list[tuple[str, Callable[[], httpx.Response], Callable[[httpx.Response], bool]]] = [
                ("generate", lambda: client.post("/v1/generate", json=_order(number)), _holds_images),
                ("authenticity", lambda: client.post("/v1/authenticity", **_upload(image)), _is_real),
                ("models", lambda: client.get("/v1/models"), lambda answer: len(answer.json()["models"]) == 2),
                ("authenticity", lambda: client.post("/v1/authenticity", **_upload(image)), _is_real),
            ]
            for route, ask, is_right in itertools.cycle(questions):
                if self._stop.is_set():
                    return
                self._note(route, ask, is_right)

    def _note(self, route: str, ask: Callable[[], httpx.Response], is_right: Callable[[httpx.Response], bool]) -> None:
        started = time.perf_counter()
        try:
            answer = ask()
        except httpx.TransportError as error:
            down = isinstance(error, httpx.ConnectError) or started > self.ended_at
            with self._lock:
                self.outcomes[NOBODY if down else BROKEN] += 1
            # A service that is down refuses at once: asking it in a tight loop would count nothing of interest.
            self._stop.wait(0.2 if down else 0)
            return
        took = time.perf_counter() - started
        with self._lock:
            if answer.status_code in PROMISED:
                self.outcomes[str(answer.status_code)] += 1
            elif answer.status_code == 200 and is_right(answer):
                self.outcomes["right"] += 1
                self.seconds_by_route[route].append(took)
            else:
                self.outcomes["wrong"] += 1
                self.wrong.append(f"{route}: {answer.status_code} {answer.content[:200]!r}")


def _order(number: int) -> dict[str, object]:
    return {"model": "waves", "count": 8, "seed": number}


def _upload(image: bytes) -> dict[str, dict[str, object]]:
    return {"files": {"image": ("image.png", image)}, "data": {"model": "waves"}}


def _holds_images(answer: httpx.Response) -> bool:
    with np.load(io.BytesIO(answer.content)) as arrays:
        return bool(arrays["images"].shape == (8, 32, 32, 3))


def _is_real(answer: httpx.Response) -> bool:
    return bool(answer.json()["verdict"] == "real")


def _await(condition: Callable[[], bool], what: str) -> float:
    """The seconds until something is so."""
    started = time.perf_counter()
    while not condition():
        if time.perf_counter() - started > RESTART_SECONDS:
            raise SystemExit(f"soak: {what} did not happen within {RESTART_SECONDS} seconds")
        time.sleep(0.02)
    return time.perf_counter() - started


@contextmanager
def _served(**settings: str) -> Iterator[Service]:
    with tempfile.TemporaryDirectory() as home:
        models = Path(home) / "models"
        write_small_release(models / "waves")
        write_small_release(models / "labelled", channels=1, labels=("benign", "malignant"))
        with serve(Path(home) / "bentoml", models, **{"VERISYNTH_WORKERS": "2", **settings}) as service:
            _await(lambda: httpx.get(f"{service.url}/readyz").status_code == 200, "readiness")
            yield service


def load(seconds: float, _: int) -> list[Row]:
    """Thirty-two clients at once."""
    with _served(VERISYNTH_MAXIMUM_REQUESTS="64") as service:
        with Load(service, clients=4).running():
            time.sleep(5)
        before = [process.memory_info().rss / 2**20 for process in service.workers()]
        with Load(service, clients=32).running() as asked:
            time.sleep(seconds)
        after = [process.memory_info().rss / 2**20 for process in service.workers()]
    times = {route: [1e3 * took for took in all_] for route, all_ in asked.seconds_by_route.items()}
    told = "; ".join(
        f"{route} p50 {statistics.median(all_):.0f} ms, p99 {statistics.quantiles(all_, n=100)[98]:.0f} ms"
        for route, all_ in sorted(times.items())
    )
    memory = f"largest worker {max(before):.0f} MiB before, {max(after):.0f} MiB after"
    return [asked.row(f"32 clients for {seconds:.0f} s, mixed questions", 1, f"{told}; {memory}")]


def kill(_: float, times: int) -> list[Row]:
    """A worker killed under load, again and again."""
    back: list[float] = []
    with _served() as service, Load(service, clients=8).running() as asked:
        for _round in range(times):
            time.sleep(1)
            back.append(_replace_one(service))
        time.sleep(2)
    return [asked.row("SIGKILL of one of two workers under load", len(back), f"back after {max(back):.1f} s at most")]


def _replace_one(service: Service) -> float:
    """Kill a worker; the seconds until there are as many as before."""
    alive = {process.pid for process in service.workers()}
    os.kill(min(alive), signal.SIGKILL)
    return _await(lambda: len({process.pid for process in service.workers()} - {min(alive)}) >= len(alive), "a worker")


def stop(_: float, times: int) -> list[Row]:
    """SIGTERM under load: what is in hand is answered, what comes after finds nobody."""
    all_, longest = None, 0.0
    for _round in range(times):
        with _served() as service, Load(service, clients=8).running() as asked:
            time.sleep(2)
            asked.ended_at = time.perf_counter()
            service.process.terminate()
            longest = max(longest, _await(lambda: service.process.poll() is not None, "the end"))
        all_ = all_ or Load(service, 0)
        all_.add(asked)
    assert all_ is not None
    return [all_.row("SIGTERM under load", times, f"gone after {longest:.1f} s at most")]


def disk(_: float, times: int) -> list[Row]:
    """No room for the audit log: nothing that cannot be recorded is answered, and all goes on when there is room."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "audit.jsonl"
        with _served(VERISYNTH_AUDIT_FILE=str(log)) as service:
            with Load(service, clients=4).running() as asked:
                for _round in range(times):
                    time.sleep(1)
                    for process in service.workers():
                        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
                        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
                    time.sleep(1)
                    for process in service.workers():
                        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
            refused = asked.outcomes["503"]
            chain = verify([log])
    recorded = f"audit log whole, {chain.lines} lines; {refused} refused while there was no room"
    return [asked.row("no room for the audit log, then room again", times, recorded)]


def crash(_: float, times: int) -> list[Row]:
    """The whole service killed under load: what was answered is in the audit log."""
    lines = 0
    all_ = None
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "audit.jsonl"
        for _round in range(times):
            with _served(VERISYNTH_AUDIT_FILE=str(log)) as service, Load(service, clients=4).running() as asked:
                time.sleep(2)
                for process in [*service.workers(), psutil.Process(service.process.pid)]:
                    process.send_signal(signal.SIGKILL)
                service.process.wait(timeout=30)
            all_ = all_ or Load(service, 0)
            all_.add(asked)
            lines = verify([log]).lines
            assert lines >= all_.outcomes["right"], f"{lines} lines, {all_.outcomes['right']} answers"
    assert all_ is not None
    return [all_.row("SIGKILL of all processes, then a new start", times, f"audit log whole, {lines} lines")]


def reload(_: float, times: int) -> list[Row]:
    """Releases swapped under load, the file of each then truncated where it lies, which no client is to notice."""
    with tempfile.TemporaryDirectory() as folder:
        made = [write_small_release(Path(folder) / str(middle) / "waves", middle=middle) for middle in (110, 120)]
        with _served(VERISYNTH_RELOAD_SECONDS="1") as service, Load(service, clients=8).running() as asked:
            for turn in range(times):
                release = made[turn % 2]
                promote(service.models, release)
                _await_everywhere(service, lambda answer: _versions(answer)["waves"] == release.version)  # noqa: B023
                (Path(folder) / GENERATOR).write_bytes((release.folder / GENERATOR).read_bytes()[:1000])
                (Path(folder) / GENERATOR).replace(service.models / "waves" / GENERATOR)
                _await_everywhere(service, lambda answer: "waves" in answer["refused"])
    return [asked.row("a release swapped, then its generator truncated, under load", times)]


def _await_everywhere(service: Service, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Until workers answer as wanted, twenty times in a row over connections of their own."""

    def ask() -> bool:
        return wanted(httpx.get(f"{service.url}/v1/models", headers={"Connection": "close"}).json())

    _await(lambda: all(ask() for _ in range(20)), "a reload")


def _versions(answer: dict[str, Any]) -> dict[str, str]:
    return {model["name"]: model["version"] for model in answer["models"]}


PARTS: dict[str, Callable[[float, int], list[Row]]] = {
    "load": load,
    "kill": kill,
    "stop": stop,
    "disk": disk,
    "crash": crash,
    "reload": reload,
}


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| fault | times | requests | right | refused as promised | connection broke | nobody took it | lost | |",
        "|---" + "|---:" * 7 + "|---|",
    ]
    lines += [
        f"| {row.what} | {row.times} | {row.requests} | {row.answered} | {row.refused} | {row.broken} "
        f"| {row.nobody} | {row.lost} | {row.remarks} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"any of {', '.join(PARTS)}; all by default")
    parser.add_argument("--seconds", type=float, default=60, help="how long there is load (default 60)")
    parser.add_argument("--times", type=int, default=5, help="how often each harm is done (default 5)")
    chosen = parser.parse_args()
    rows: list[Row] = []
    for part in chosen.parts or list(PARTS):
        print(f"--- {part}", flush=True)
        rows += PARTS[part](chosen.seconds, chosen.times)
        print(table(rows[-1:]), flush=True)
    print(f"\n{table(rows)}")
    if any(row.lost for row in rows):
        sys.exit("soak: answers were lost")


if __name__ == "__main__":
    main()
