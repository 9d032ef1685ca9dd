"""Both endpoints, asked by one client, against the same work in this process."""

import functools
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import onnxruntime

from contracts import imaging
from contracts.latents import latents
from contracts.manifest import DETECTOR, GENERATOR, read_release
from serving.settings import available_cores
from tests.bench.results import MODELS, ROUNDS, Result, at_least, at_most, in_turns
from tests.services import serve


def serving() -> list[Result]:
    """Both endpoints against the same work in this process, on the release `ihc` and the provider of the service."""
    release = read_release(MODELS / "ihc")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    noise = latents(0, 0, 256, release.latent_size)

    with (
        tempfile.TemporaryDirectory() as home,
        serve(Path(home), MODELS) as service,
        closing(HTTPConnection(service.url.removeprefix("http://"), timeout=60)) as connection,
    ):
        provider = httpx.get(f"{service.url}/v1/models/ihc").json()["provider"]
        generator, detector = (
            onnxruntime.InferenceSession(release.folder / name, options, providers=[provider])
            for name in (GENERATOR, DETECTOR)
        )
        upload = imaging.encode_png(generator.run(["image"], {"latent": noise[:1]})[0][0])
        parts = {"image": ("image.png", upload, "image/png"), "model": (None, "ihc")}
        encoded = httpx.Request("POST", "http://localhost", files=parts)
        form, form_type = encoded.read(), encoded.headers["content-type"]

        def judge() -> None:
            tiles = imaging.fit(imaging.decode(upload).pixels, release.image)
            detector.run(None, {"image": tiles})

        # The plainest client there is: what a comfortable one costs is not the service's time.
        def post(path: str, body: bytes, content_type: str) -> float:
            """Seconds until the first byte of the answer."""
            start = time.perf_counter()
            connection.request("POST", path, body, {"Content-Type": content_type})
            answer = connection.getresponse()
            first = time.perf_counter() - start
            content = answer.read()
            assert answer.status == 200, content
            return first

        def generate(form: str) -> float:
            body = json.dumps({"model": "ihc", "count": 256, "seed": 0, "format": form}).encode()
            return post("/v1/generate", body, "application/json")

        def check() -> None:
            post("/v1/authenticity", form, form_type)

        def session(batch: int) -> None:
            for start in range(0, 256, batch):
                generator.run(["image"], {"latent": noise[start : start + batch]})

        # What one batch of the service takes while all of its threads are at work.
        options.intra_op_num_threads = 1
        single = onnxruntime.InferenceSession(release.folder / GENERATOR, options, providers=[provider])

        def chunks() -> None:
            with ThreadPoolExecutor(available_cores()) as pool:
                chunk = functools.partial(single.run, ["image"], {"latent": noise[:64]})
                for future in [pool.submit(chunk) for _ in range(available_cores())]:
                    future.result()

        in_chunks, chunk = in_turns(lambda: session(64), chunks, ROUNDS)

        def streamed(form: str) -> tuple[float, float]:
            """The rate beside the bare session's, and the median seconds to the first byte."""
            firsts: list[float] = []
            whole, over_http = in_turns(lambda: session(256), lambda: firsts.append(generate(form)), ROUNDS)
            bare = min(whole, in_chunks)
            print(f"256 images: bare session {bare * 1e3:.0f} ms, {form} {over_http * 1e3:.0f} ms")
            return bare / over_http, statistics.median(firsts)

        measured = {form: streamed(form) for form in ("npz", "zip")}
        direct, through_service = in_turns(judge, check, 10 * ROUNDS)
    late = {form: 1e3 * (first - chunk) for form, (_, first) in measured.items()}
    print(f"one chunk: {chunk * 1e3:.0f} ms; first byte later by", {form: f"{ms:.0f} ms" for form, ms in late.items()})
    print(f"one check: in-process {direct * 1e3:.2f} ms, service {through_service * 1e3:.2f} ms")
    return [
        at_least("generate npz / bare session, images per second", measured["npz"][0], 0.9),
        at_least("generate zip / bare session, images per second", measured["zip"][0], 0.7),
        *(at_most(f"first byte of {form} after one chunk's inference, milliseconds", late[form], 100) for form in late),
        at_most(
            "authenticity call less 2 ms / in-process decode and inference", (through_service - 0.002) / direct, 1.5
        ),
    ]
