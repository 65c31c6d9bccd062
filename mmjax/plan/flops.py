"""FLOPs of matrix products and convolutions, counted in a traced program (a jaxpr).

The trace knows how long its loops are and is the same for every platform and mesh; elementwise
work, a few per mille in a transformer, does not count, as is usual for MFU (Chowdhery et al. 2022,
arXiv 2204.02311, appendix B).
"""

import dataclasses
import math

import jax
from jax.extend import core


@dataclasses.dataclass(frozen=True)
class Work:
    """flops: multiplications and additions. seconds: at peak FLOP/s or at full bandwidth."""

    flops: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.seconds + other.seconds)

    def __mul__(self, times: float) -> "Work":
        return Work(self.flops * times, self.seconds * times)


def count(
    jaxpr: core.Jaxpr,
    peak: float = math.inf,
    bandwidth: float = math.inf,
    batched_products: bool = True,
) -> Work:
    """The work of one run, over all devices.

    Args:
      jaxpr: of the program, closed or not.
      peak, bandwidth: FLOP/s and bytes/s of all devices; a product takes the longer of its FLOPs
        and its operands and result (roofline, Williams et al. 2009).
      batched_products: whether products of two arrays with batch axes count, such as those of
        attention; tools that sum over layers with weights leave them out.
    """
    total = Work()
    for eqn in _used(getattr(jaxpr, "jaxpr", jaxpr)):
        name = eqn.primitive.name
        if name in ("dot_general", "conv_general_dilated"):
            if name == "dot_general" and not (batched_products or _weights_alone(eqn)):
                continue
            flops = (_dot if name == "dot_general" else _convolution)(eqn)
            moved = sum(v.aval.size * v.aval.dtype.itemsize for v in (*eqn.invars, *eqn.outvars))
            total += Work(flops, max(flops / peak, moved / bandwidth))
            continue
        if name == "pallas_call":  # by the kernel's own estimate: its products may be half padding
            own = eqn.params["cost_estimate"]
            total += Work(own.flops, max(own.flops / peak, own.bytes_accessed / bandwidth))
            continue
        inner = [count(j, peak, bandwidth, batched_products) for j in _jaxprs(eqn)]
        if name == "cond":
            total += max(inner, key=lambda w: w.flops)
            continue
        times = eqn.params["length"] if name == "scan" else 1
        if name == "shard_map":  # its body is what one device does
            times = eqn.params["mesh"].size
        total += sum(inner, Work()) * times
    return total


def _used(jaxpr: core.Jaxpr) -> list[core.JaxprEqn]:
    """The equations whose results are used: the compiler drops the others."""
    needed = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(v in needed for v in eqn.outvars):
            kept.append(eqn)
            needed |= {v for v in eqn.invars if not isinstance(v, core.Literal)}
    return kept[::-1]


def _jaxprs(eqn: core.JaxprEqn) -> list:
    found = jax.tree.leaves(
        list(eqn.params.values()), is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr)
    )
    return [x for x in found if isinstance(x, core.Jaxpr | core.ClosedJaxpr)]


def _weights_alone(eqn: core.JaxprEqn) -> bool:
    """Whether a product has no batch axes."""
    _, (batch, _) = eqn.params["dimension_numbers"]
    return not batch


def _dot(eqn: core.JaxprEqn) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    return 2.0 * eqn.outvars[0].aval.size * math.prod(left[i] for i in contracted)


def _convolution(eqn: core.JaxprEqn) -> float:
    kernel = eqn.invars[1].aval.shape
    features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * eqn.outvars[0].aval.size * math.prod(kernel) / features
