"""A service of a toy gallery, and a client with its key."""

import pytest
from serving.toy_service import KEY, LIMITS, ToyRetriever, toy_gallery
from starlette.testclient import TestClient

from data_prep.formats.uploaded import read_pack
from int_ra_jax.serving.app import build
from int_ra_jax.serving.service import Service
from int_ra_jax.serving.settings import Key, Settings


@pytest.fixture
def service():
    made = Service(ToyRetriever(toy_gallery()), LIMITS, read_pack)
    yield made
    made.close()


@pytest.fixture
def client(service):
    app = build(service, Settings(key=Key(KEY), limits=LIMITS))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client
