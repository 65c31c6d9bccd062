"""Blocks on top of each other, whose parameters lie along one `layers` axis."""

from collections.abc import Sequence

import flax.linen as nn

from mmjax.layers.precision import on_cpu


def stack(block: type[nn.Module], depth: int, module: nn.Module, in_axes: Sequence = ()):
    """`depth` of `block`, each `(carry, *inputs) -> (carry, None)`, as one module's class.

    Args:
      module: the one that calls, for whether it is initializing.
      in_axes: for each of the inputs 0 (a slice a layer) or `flax.linen.broadcast`.
    """
    # A loop costs the CPU backend its fusions between layers.
    unroll = depth if on_cpu() and not module.is_initializing() else 1
    return nn.scan(
        block,
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=tuple(in_axes),
        length=depth,
        unroll=unroll,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
