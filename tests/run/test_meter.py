"""Speed, utilization and goodput of a run, in closed form."""

import types

import pytest

from mmjax.run import meter


def test_numbers_at_a_rate(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: clock[0])
    device = types.SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 3 * 2**30})
    monkeypatch.setattr(meter.jax, "local_devices", lambda: [device])
    found = meter.Meter(first_step=10, peak=4e12)
    found.flops = 16e12
    clock[0] += 50.0
    now = found.read(20, 64, 32.0, [device] * 4)  # ten steps of 2 s in 50 s
    assert now.pop("host_memory_gib") > 0.05
    assert now == pytest.approx(
        {
            "examples_per_second": 32.0,
            "step_seconds": 2.0,
            "goodput": 0.4,
            "tflops_per_device": 2.0,
            "mfu": 0.5,
            "device_memory_gib": 3.0,
        }
    )


def test_what_is_unknown_is_left_out(monkeypatch):
    device = types.SimpleNamespace(memory_stats=lambda: None)
    monkeypatch.setattr(meter.jax, "local_devices", lambda: [device])
    found = meter.Meter(first_step=0)
    assert set(found.read(1, 64, 0.0, [device])) == {"host_memory_gib"}
    assert "mfu" not in found.read(1, 64, 1.0, [device])
