"""Speed and utilization of a run, in closed form."""

import types

import pytest

from mmjax.run import meter


def test_numbers_at_a_rate(monkeypatch):
    device = types.SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 3 * 2**30})
    monkeypatch.setattr(meter.jax, "local_devices", lambda: [device])
    found = meter.Meter(64, [device] * 4, peak=4e12)
    found.add({}, lambda: 16e12)
    now = found.read(32.0)  # steps of 2 s
    assert now.pop("host_memory_gib") > 0.05
    assert now == pytest.approx(
        {
            "examples_per_second": 32.0,
            "step_seconds": 2.0,
            "tflops_per_device": 2.0,
            "mfu": 0.5,
            "device_memory_gib": 3.0,
        }
    )
    assert list(found.short(32.0)) == ["MFU 50.0%", "3.0 GiB"]


def test_what_is_unknown_is_left_out(monkeypatch):
    device = types.SimpleNamespace(memory_stats=lambda: None)
    monkeypatch.setattr(meter.jax, "local_devices", lambda: [device])
    found = meter.Meter(64, [device])
    assert set(found.read(0.0)) == {"host_memory_gib"}
    assert "mfu" not in found.read(1.0)
    found.add({}, lambda: 128e12)
    speed, memory = found.short(32.0)
    assert speed == "64 TFLOP/s per device" and memory.endswith(" GiB")
