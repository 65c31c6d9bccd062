"""From the tokens of an image tower to the embeddings of a language model."""

import flax.linen as nn
import jax
from einops import rearrange

from mmjax.layers.activations import activation
from mmjax.layers.linear import Linear

KINDS = ("linear", "mlp")


class Projector(nn.Module):
    """Image tokens [N, S, C] -> [N, S / shuffle², width].

    Attributes:
      width: of the language model.
      kind: "linear", one map (LLaVA, PaliGemma, Idefics3), or "mlp", two with an activation between
        (LLaVA-1.5).
      shuffle: S is a square grid, whose blocks of shuffle x shuffle tokens are first concatenated
        to one, rows before columns (pixel shuffle).

    Raises:
      ValueError: an unknown kind, or a grid that is not square or not divided by `shuffle`.

    Source: Liu et al. 2023 (arXiv 2304.08485), section 4.1; Liu et al. 2023 (arXiv 2310.03744),
    section 3.3; pixel shuffle: transformers' modeling_idefics3.py, Idefics3Connector.
    """

    width: int
    kind: str = "mlp"
    activation: str = "gelu"
    use_bias: bool = True
    shuffle: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.kind not in KINDS:
            raise ValueError(
                f"kind of a projector is '{self.kind}'; use one of {', '.join(KINDS)}."
            )
        x = merged_blocks(x, self.shuffle)
        normal = nn.initializers.normal
        if self.kind == "mlp":
            init = normal(x.shape[-1] ** -0.5)
            names = ("embed", "mlp")
            x = Linear((self.width,), names, self.use_bias, self.dtype, init, name="inner")(x)
        init, names = normal(x.shape[-1] ** -0.5), ("mlp", "embed")
        before = activation(self.activation) if self.kind == "mlp" else None
        out = Linear(
            (self.width,), names, self.use_bias, self.dtype, init, before=before, name="out"
        )
        return out(x)


def merged_blocks(x: jax.Array, size: int) -> jax.Array:
    """Tokens [N, S, C] of a square grid -> [N, S / size², size² C]: blocks side by side.

    Raises:
      ValueError: a grid that is not square or not divided by `size`.
    """
    if size == 1:
        return x
    side = grid_side(x.shape[1], size)
    return rearrange(
        x, "n (h p w q) c -> n (h w) (p q c)", h=side // size, w=side // size, p=size, q=size
    )


def grid_side(tokens: int, size: int) -> int:
    """The side of a square grid of so many tokens.

    Raises:
      ValueError: a grid that is not square or not divided by `size`.
    """
    side = round(tokens**0.5)
    if side * side != tokens or side % size:
        raise ValueError(
            f"A projector with shuffle {size} got images of {tokens} tokens: it needs a square "
            f"grid whose side is a multiple of {size}."
        )
    return side


def count_tokens(tokens: int, size: int) -> int:
    """Tokens of an image after `merged_blocks`."""
    return tokens if size == 1 else (grid_side(tokens, size) // size) ** 2
