"""The first tensor that is not finite is named."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax import finite


def test_is_finite_inside_jit():
    check = jax.jit(finite.is_finite)
    for loss, norm, want in [
        (1.0, 2.0, True),
        (np.nan, 2.0, False),
        (1.0, np.inf, False),
        (-np.inf, 2.0, False),
    ]:
        assert bool(check(jnp.float32(loss), jnp.bfloat16(norm))) is want


def test_first_nonfinite_names_tensor_kind_and_count():
    kernel = np.zeros((2, 3), np.float32)
    kernel[0, 1], kernel[1, 2], kernel[1, 1] = np.nan, np.inf, -np.inf
    trees = {
        "loss": {"contrastive": jnp.float32(1.0)},
        "outputs": {"image_embed": jnp.ones((2, 2), jnp.bfloat16), "count": jnp.int32(3)},
        "gradients": {"image": {"bias": jnp.zeros(2), "mlp": {"kernel": jnp.asarray(kernel)}}},
        "parameters": {"a": jnp.full(2, jnp.nan)},
    }
    assert (
        finite.first_nonfinite(trees)
        == "gradients: image/mlp/kernel [2, 3] (1 NaN, 2 infinite of 6)"
    )


@settings(max_examples=30)
@given(bad=st.sets(st.sampled_from(range(8))), value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_the_first_in_the_given_order_is_named(bad, value):
    """Against a plain search: eight scalars in two trees, some of them bad."""
    leaves = [np.float32(value if i in bad else i) for i in range(8)]
    trees = {
        "z": {f"k{i}": leaves[i] for i in range(4)},
        "a": {f"k{i}": leaves[i] for i in range(4, 8)},
    }
    found = finite.first_nonfinite(trees)
    if not bad:
        assert found is None
    else:
        first = min(bad)
        assert found.startswith(f"{'z' if first < 4 else 'a'}: k{first} ")


def test_a_bare_array_goes_by_its_title():
    assert finite.first_nonfinite({"loss": jnp.float32(np.nan)}).startswith("loss [] (1 NaN")


def test_the_error_says_where_and_what_to_do():
    error = finite.NonFiniteError(12, "loss [] (1 NaN)", "runs/a", "runs/a/checkpoints/10")
    assert isinstance(error, ValueError)
    for words in ("Step 12", "loss []", "runs/a/checkpoints/10", "learning_rate", "--step=12"):
        assert words in str(error)
    assert "nothing was saved" in str(finite.NonFiniteError(1, None, "runs/a"))
