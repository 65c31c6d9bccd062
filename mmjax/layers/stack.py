"""A scanned stack of blocks, whose parameters are stacked along one `layers` axis."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from mmjax.layers import platform

# What a block saves for its backward pass and does not recompute. The names are those of the fused
# attention's input and result.
_POLICIES = jax.checkpoint_policies
REMAT = {
    "none": None,
    "full": _POLICIES.nothing_saveable,
    "dots": _POLICIES.save_from_both_policies(
        _POLICIES.dots_with_no_batch_dims_saveable,
        _POLICIES.save_only_these_names("qkv", "attention"),
    ),
}


def stack(
    block: type[nn.Module],
    depth: int,
    module: nn.Module,
    in_axes: Sequence = (),
    remat: str = "none",
) -> type[nn.Module]:
    """`depth` layers of `block`, `(carry, *inputs) -> (carry, None)`, as one module class.

    Args:
      module: the calling module; tells whether it is initializing.
      in_axes: for each input, 0 (one slice per layer) or `flax.linen.broadcast`.
      remat: what is saved for the backward pass, one of `REMAT`.

    Raises:
      ValueError: an unknown `remat`.
    """
    if remat not in REMAT:
        raise ValueError(f"Unknown remat '{remat}'; use one of {sorted(REMAT)}.")
    unroll = 1
    if remat != "none":
        block = nn.remat(block, policy=REMAT[remat], prevent_cse=False)
    elif platform.current().unrolled_layers and not module.is_initializing():
        # A loop prevents fusions between layers on CPU, and on TPUs copies everything that is saved
        # for the backward pass. With remat it must be a loop: unrolled, XLA eliminates the
        # recomputation as a common subexpression, and no memory is saved.
        unroll = depth
    return nn.scan(
        block,
        variable_axes={"params": 0, "intermediates": 0, "cache": 0, "offsets": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=tuple(in_axes),
        length=depth,
        unroll=unroll,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
