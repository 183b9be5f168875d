"""What the server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_IMAGES = tuple(2**power for power in range(11))


class Metrics:
    """The counters of one server. They have a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = self._of(Counter, 'requests', 'Requests that were answered', 'status')
        self.dropped = self._of(Counter, 'images_dropped', 'Images nobody waited for any more')
        self.waiting = self._of(Gauge, 'waiting_images', 'Images in the queue', 'model')
        self.queue_seconds = self._of(
            Histogram, 'queue_seconds', 'From the queue to a batch', 'model', buckets=_SECONDS
        )
        self.batch_images = self._of(
            Histogram, 'batch_images', 'Images computed at once', 'model', buckets=_IMAGES
        )
        self.computing_seconds = self._of(
            Histogram, 'computing_seconds', 'Computation of a batch', 'model', buckets=_SECONDS
        )
        self.decoding_seconds = self._of(
            Histogram, 'decoding_seconds', 'Decoding of an image', buckets=_SECONDS
        )

    def _of(self, kind, name, text, *labels, **options):
        return kind(f'neptune_jax_{name}', text, labels, registry=self._registry, **options)

    def text(self) -> bytes:
        """Returns all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
