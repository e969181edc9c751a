"""What the server counts, for Prometheus."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class ServerMetrics:
    """The counters of one server, in a registry of their own, and its log."""

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "ractd_requests",
            "Requests by how they ended: answered, refused (the client's fault), failed (the policy's)",
            ["outcome"],
            registry=registry,
        )
        self.seconds = Histogram(
            "ractd_request_seconds", "From a complete request to its answer", buckets=SECONDS, registry=registry
        )
        self.sample_seconds = Histogram(
            "ractd_sample_seconds", "The policy, per batch", buckets=SECONDS, registry=registry
        )
        self.batch_size = Histogram(
            "ractd_batch_size", "Requests per batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), registry=registry
        )
        self.clients = Gauge("ractd_clients", "Connected clients", registry=registry)
        self.connections = Counter(
            "ractd_connections", "Connections by how they were answered", ["outcome"], registry=registry
        )
        self.reloads = Counter("ractd_reloads", "Policy swaps by how they ended", ["outcome"], registry=registry)
        self.policy = Info("ractd_policy", "The policy that answers now", registry=registry)
        self.answered, self.refused, self.failed = map(self.requests.labels, ("answered", "refused", "failed"))

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
