"""The table of chips, and names of topologies."""

import math

import pytest

from mmjax.plan import chips


@pytest.mark.parametrize(
    ("name", "devices", "rented"),
    [("v5e:16x16", 256, 256), ("v5p:4x4x4", 64, 64), ("tpu7x:2x2x1", 8, 4), ("gpu:h100x8", 8, 8)],
)
def test_devices_and_chips(name, devices, rented):
    topology = chips.parse(name)
    assert (topology.count, topology.chips) == (devices, rented)


def test_published_pods():
    """Peak of a pod, as Google's pages give it: v5e 50.63 PFLOP/s, v6e 234.9."""
    for name, peak in (("v5e:16x16", 50.63e15), ("v6e:16x16", 234.9e15)):
        topology = chips.parse(name)
        assert math.isclose(topology.count * topology.chip.flops, peak, rel_tol=0.005)


@pytest.mark.parametrize(
    ("kind", "count", "all_reduce"),
    [("v4", 4096, 1.1e15), ("v5e", 256, 51.2e12), ("v6e", 256, 102.4e12)],
)
def test_published_interconnects(kind, count, all_reduce):
    """All-reduce bandwidth of a pod, as Google's pages give it: what its chips send in a ring."""
    assert math.isclose(count * chips.CHIPS[kind].link, all_reduce, rel_tol=0.01)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        *(("v5e:16x16", 1), ("v5e:8x16", 0.75), ("v5e:8x8", 0.5), ("v5e:2x2", 0.5)),
        *(("v5p:4x4x4", 1), ("v5p:2x2x1", 1 / 3), ("v5e:1x1", 1)),
    ],
)
def test_lines_of_chips_send_less_than_rings(name, share):
    """A ring of n sends 2 (n - 1) / n of an array over both links of an axis; a line over one."""
    topology = chips.parse(name)
    assert math.isclose(topology.chip.link, share * chips.CHIPS[name.split(":")[0]].link)


def test_clocks_are_those_that_are_known():
    """v4: 1,050 MHz (Jouppi et al. 2023, arXiv 2304.01433, table 4)."""
    assert math.isclose(chips.CHIPS["v4"].clock, 1050e6, rel_tol=0.01)
    assert all(1e9 < c.clock < 2.5e9 for c in chips.CHIPS.values() if c.platform == "tpu")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v5e:3x5", "v5e:16x16"),
        ("v5e", "v5e:4x4"),
        ("v5e:32x32", "no v5e of that shape"),
        ("v9:2x2", "gpu:h100x8"),
        ("gpu:h100", "gpu:h100x8"),
        ("gpu:v5ex8", "no such accelerator"),
        ("gpu:h100x0", "no such accelerator"),
        ("cpu:0", "cpu:8"),
        ("", "v5p:"),
    ],
)
def test_what_does_not_exist_lists_what_does(name, said):
    with pytest.raises(ValueError, match=said):
        chips.parse(name)


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(chips.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    with pytest.raises(ValueError, match="tpu-plan"):
        chips.prepare("v5e:4x4")


def test_devices_are_known_by_jax_s_names_for_them():
    for kind, name in {
        "TPU v4": "v4",
        "TPU v5 lite": "v5e",
        "TPU v5p": "v5p",
        "TPU v5": "v5p",
        "TPU v6 lite": "v6e",
        "TPU7x": "tpu7x",
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA A100-SXM4-80GB": "a100",
    }.items():
        assert chips.chip_of(kind) is chips.CHIPS[name]
    assert chips.chip_of("cpu") is None
