"""Has kafka-python's integration tests use a broker that is there, in place of one that they start, and knows which of them are for
something that is not built."""

import os
import sys
import types
from urllib.parse import urlparse

import pytest

# Starts processes. The source distribution lacks it, and nothing is started.
service = types.ModuleType("test.service")
service.ExternalService = service.SpawnedService = None
sys.modules["test.service"] = service

from test.integration.fixtures import KafkaFixture  # noqa: E402


class Broker:
    partitions = 4
    replicas = 1

    def _enrich_client_params(self, params, **defaults):
        return {"bootstrap_servers": urlparse(os.environ["KAFKA_URI"]).netloc, **defaults, **params}


KafkaFixture.instance = lambda *_, **__: Broker()


def pytest_collection_modifyitems(items):
    with open(os.environ["OUTSIDE"]) as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    outside = dict(line.split(": ", 1) for line in lines)
    found = set()
    for item in items:
        if why := outside.get(item.path.name):
            item.add_marker(pytest.mark.skip(reason=why))
            found.add(item.path.name)
        elif why := outside.get(item.originalname):
            item.add_marker(pytest.mark.xfail(reason=why, strict=True))
            found.add(item.originalname)
    items_of_all_files = len({item.path for item in items}) == 5
    if items_of_all_files and (unknown := set(outside) - found):
        raise pytest.UsageError(f"there is no test {', '.join(sorted(unknown))}")
