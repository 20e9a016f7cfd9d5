"""Drift between index and manifests, as metrics."""

from prometheus_client import Counter, Gauge

DRIFT = Gauge(
    "leat_index_drift_points", "Points that differed from their manifests in the last slice, by kind.", ["kind"]
)
REPAIRED = Counter("leat_index_repaired_points_total", "Points that the reconciler has repaired, by kind.", ["kind"])


def count_drift(kind: str, found: int, repaired: int) -> None:
    """After a slice: what differed, and what of it was repaired."""
    DRIFT.labels(kind).set(found)
    REPAIRED.labels(kind).inc(repaired)
