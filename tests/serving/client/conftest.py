"""The real service behind a network that fails when it is told to."""

from collections.abc import Iterator

import pytest

from tests.flaky import Flaky, flaky
from tests.services import Service


@pytest.fixture(scope="module")
def proxy(service: Service) -> Iterator[Flaky]:
    with flaky(service.url) as running:
        yield running


@pytest.fixture
def network(proxy: Flaky) -> Flaky:
    proxy.faults.clear()
    proxy.requests.clear()
    return proxy
