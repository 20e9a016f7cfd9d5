"""Metrics of processes that have no HTTP of their own."""

import urllib.request

import pytest

from infra.guardrails import GUARDRAILS
from infra.local.ports import free_ports
from infra.telemetry import serving_metrics
from streams.errors import PermanentError


def test_a_consumers_metrics_are_served_while_it_runs():
    [port] = free_ports(1)
    GUARDRAILS.labels("length-in-question").inc()
    with serving_metrics("127.0.0.1", port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            assert b'leat_guardrails_total{name="length-in-question"}' in response.read()
        with pytest.raises(PermanentError, match="metrics-port-taken"), serving_metrics("127.0.0.1", port):
            pass
    with serving_metrics("127.0.0.1", port):
        pass


def test_without_a_port_nothing_is_served():
    with serving_metrics("127.0.0.1", None):
        pass
