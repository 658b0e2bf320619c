"""Counts and times of a service, for Prometheus; none of them says what was asked."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector
from starlette.types import Scope

from int_ra_jax.serving.guards import labels_of

MEDIA_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """What a service counts.

    Args:
      stickers: returns how many stickers there are.
      waiting: returns how many requests wait for the model.
    """

    def __init__(self, stickers: Callable[[], int], waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "int_ra_requests", "Requests answered.", ("method", "route", "status"),
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "int_ra_request_seconds", "From a request's head to the end of its answer.",
            ("method", "route"), buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._batches = Histogram(
            "int_ra_batch_size", "Questions that the model answered together.",
            buckets=_SIZES, registry=self._registry,
        )  # fmt: skip
        for name, text, read in (
            ("int_ra_stickers", "Stickers of the gallery.", stickers),
            ("int_ra_waiting", "Requests that wait for the model.", waiting),
        ):
            Gauge(name, text, registry=self._registry).set_function(read)

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        """Counts an answer; status 0 where the asker hung up."""
        method, route = labels_of(scope)
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def batch(self, size: int) -> None:
        """Counts a batch."""
        self._batches.observe(size)

    def text(self) -> bytes:
        """Returns everything, in Prometheus' text format."""
        return generate_latest(self._registry)
