"""What `mmjax.plan` found, as one page of text and as JSON."""

import dataclasses
import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mmjax.plan.chips import GIB, Topology
from mmjax.plan.estimate import WHOLE, Estimate, Tensor


def page(
    found: Mapping[str, Any], config: ConfigDict, topology: Topology, price: float | None
) -> str:
    """The page.

    Args:
      found: from `mmjax.plan.plan`.
      price: of a chip-hour; None: none is shown.
    """
    it: Estimate = found["estimate"]
    parts = [
        [_title(it, config)],
        _source(it, topology),
        _parameters(it),
        _tensors(it),
        _memory(it, topology),
        _verdict(it, found["tried"], found["limited"]),
        _collectives(it),
        _time(it, topology, price),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def known(facts: Mapping[str, float], as_json: bool) -> str:
    """What was known when the time was over: see `estimate`."""
    if as_json:
        return json.dumps(facts, indent=2)
    named = {
        "parameters": lambda n: f"{n:,} parameters",
        "state": lambda n: f"{_gib(n)} of parameters and optimizer state per chip",
        "flops": lambda n: f"{n:.3e} FLOPs per step",
    }
    return "Known so far: " + ("; ".join(named[k](n) for k, n in facts.items()) or "nothing") + "."


def as_json(found: Mapping[str, Any], price: float | None) -> dict[str, Any]:
    """The same numbers: bytes, seconds and counts, None where unknown."""
    return {
        **_numbers(found["estimate"], price),
        "tried": [
            {"change": list(change), **_numbers(one, price)} for change, one in found["tried"]
        ],
        "limited": found["limited"],
    }


def _numbers(it: Estimate, price: float | None) -> dict[str, Any]:
    derived = ("fits", "step_seconds", "mfu", "examples_per_second_chip", "hours", "chip_hours")
    cost = None if price is None or it.chip_hours is None else price * it.chip_hours
    return {
        **dataclasses.asdict(it),
        **{name: getattr(it, name) for name in derived},
        "cost": cost,
    }


def _title(it: Estimate, config: ConfigDict) -> str:
    mesh = " × ".join(f"{axis} {size}" for axis, size in it.mesh.items())
    return f"{config.name} on {it.topology}: {mesh}, batch {it.batch_size:,}"


def _source(it: Estimate, topology: Topology) -> list[str]:
    if topology.platform == "tpu":
        return [f"Compiled for this topology by the TPU compiler in {it.compile_seconds:.0f} s."]
    return [
        f"Compiled by XLA for {topology.count} CPU devices in {it.compile_seconds:.0f} s, so these "
        "are estimates:",
        "activations, code and collectives (another compiler fuses and shards differently, and",
        "this one keeps some bf16 arrays in fp32)"
        + (" and time (a roofline)." if topology.platform == "gpu" else "; time is not estimated."),
        "Parameters, optimizer state and FLOPs are exact.",
    ]


def _parameters(it: Estimate) -> list[str]:
    rows = [(name, f"{n:,}") for name, n in it.parameters.items()]
    return ["Parameters", *_table([*rows, ("total", f"{sum(it.parameters.values()):,}")])]


def _tensors(it: Estimate) -> list[str]:
    if not it.tensors:
        return []
    copies: dict[str, list[Tensor]] = {}  # a parameter, its moments, its moving average
    for tensor in it.tensors:
        copies.setdefault(_parameter(tensor.name), []).append(tensor)
    rows = [("large tensor", "count", "shape", "split over", "MB each", "MB per chip")]
    for name, alike in copies.items():
        t, count = alike[0], str(len(alike))
        sizes = (f"{t.bytes / 1e6:,.0f}", f"{t.local / 1e6:,.0f}")
        rows.append((name, count, str(list(t.shape)), f"({t.spec})", *sizes))
    lines = _table(rows)
    whole = [t for t in it.tensors if t.local == t.bytes and t.bytes > WHOLE]
    if whole and it.chips > 1:
        size = sum(t.bytes for t in whole) / GIB
        lines.append(
            f"warning: {len(whole)} of over {WHOLE / 1e6:.0f} MB are whole on every chip "
            f"({size:.2f} GiB of it); --config.mesh.fsdp splits them."
        )
    return lines


def _parameter(name: str) -> str:
    """The path of the parameter that a tensor of the state belongs to."""
    return re.sub(r"^(params|average|memory|opt_state/.*?/(mu|nu))/", "", name)


def _memory(it: Estimate, topology: Topology) -> list[str]:
    rows = [(f"{name} (part of the arguments)", _gib(n)) for name, n in it.state.items() if n]
    rows += [(name, _gib(n)) for name, n in it.memory.items()]
    what = "memory of this machine, divided" if topology.platform == "cpu" else "HBM"
    return ["Memory per chip", *_table([*rows, (what, _gib(it.hbm))])]


def _verdict(it: Estimate, tried: list, limited: bool) -> list[str]:
    if it.fits:
        return [f"It fits: {it.memory['peak'] / it.hbm:.0%} of the memory."]
    over = it.memory["peak"] - it.hbm
    lines = [f"It does not fit: {_gib(over)} too much."]
    for change, one in tried:
        verdict = "fits" if one.fits else "does not fit"
        lines.append(f"  {shlex.join(change)}: {_gib(one.memory['peak'])}, {verdict}")
        if one.fits and one.step_seconds is not None:
            lines.append(f"  then a step takes {_time_text(one.step_seconds)}")
    if limited:
        lines.append("--limit was reached before all changes were tried.")
    elif tried and not tried[-1][1].fits:
        lines.append("None of these is enough: use more chips or a smaller batch.")
    return lines


def _collectives(it: Estimate) -> list[str]:
    if not it.collectives:
        return []
    rows = [("collective", "per step", "MB of arrays", "MB sent per chip")]
    rows += [
        (kind, f"{t.count:,}", f"{t.payload / 1e6:,.1f}", f"{t.sent / 1e6:,.1f}")
        for kind, t in it.collectives.items()
    ]
    lines = _table(rows)
    if it.unknown_loops:
        lines.append(
            f"warning: {len(it.unknown_loops)} loops of unknown length were counted once: "
            + ", ".join(it.unknown_loops)
        )
    return lines


def _time(it: Estimate, topology: Topology, price: float | None) -> list[str]:
    again = it.executed_flops / it.model_flops - 1
    rows = [
        ("FLOPs per step", f"{it.model_flops:.3e}", "matrix products, from the traced program"),
        # Kernels may skip products that the model's count includes: then it would be negative.
        ("recomputed", f"{max(again, 0.0):.1%}", "remat, microbatches"),
    ]
    if it.step_seconds is not None:
        kernels = "by their schedules' bundles, without waiting for memory"
        how = "compiler's cycles" if topology.platform == "tpu" else "roofline: a lower bound"
        length = f"for {it.examples:,} examples"
        if it.largest:
            length = "at most, with each step of the largest part"
        rows += [
            ("computation", _time_text(it.compute_seconds), how),
            *(
                [("of it, kernels", _time_text(it.kernel_seconds), kernels)]
                * bool(it.kernel_seconds)
            ),
            ("collectives", _time_text(it.network_seconds), "at full speed, no overlap"),
            ("step", _time_text(it.step_seconds), "estimate: the sum"),
            ("MFU", f"{it.mfu:.1%}", f"of {it.peak_flops / it.chips / 1e12:.0f} TFLOP/s per chip"),
            ("examples/s per chip", f"{it.examples_per_second_chip:,.1f}", ""),
            ("hours", f"{it.hours:,.1f}", length),
            ("chip-hours", f"{it.chip_hours:,.0f}", ""),
        ]
        if price is not None:
            rows.append(("cost", f"{price * it.chip_hours:,.0f}", f"at {price:g} per chip-hour"))
    lines = ["Time", *_table(rows)]
    if it.unknown_kernels:
        lines.append(
            f"warning: {len(it.unknown_kernels)} kernels count as 0, as this libtpu did not give "
            "their schedules: " + ", ".join(it.unknown_kernels)
        )
    return lines


def _gib(n: float) -> str:
    return f"{n / GIB:,.2f} GiB"


def _time_text(seconds: float) -> str:
    return f"{1000 * seconds:,.3g} ms" if seconds < 1 else f"{seconds:,.2f} s"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns of equal width; cells that begin with a digit are right-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.rjust(w) if cell[:1].isdigit() else cell.ljust(w) for cell, w in zip(row, widths)
        ).rstrip()
        for row in rows
    ]
