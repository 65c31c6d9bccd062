import numpy as np
import pytest
from scipy.special import erf

from mmjax.layers.activations import activation
from mmjax.layers.sizes import decode_text_variant, decode_variant, resolve


def test_variants_are_those_of_the_papers():
    # ViT (arXiv 2010.11929), table 1; CLIP (arXiv 2103.00020), table 19.
    base = {"width": 768, "depth": 12, "mlp_dim": 3072, "heads": 12}
    assert decode_variant("ViT-B/16") == base | {"patch_size": 16}
    assert decode_variant("B/32") == base | {"patch_size": 32}
    assert decode_variant("B") == base
    assert decode_variant("So400m/14")["mlp_dim"] == 4304
    assert decode_text_variant("B") == {"width": 512, "depth": 12, "mlp_dim": 2048, "heads": 8}


@pytest.mark.parametrize("variant", ["X/16", "B/", "B/16/2", "ViT", ""])
def test_other_variants_raise(variant):
    with pytest.raises(ValueError, match="variant"):
        decode_variant(variant)


def test_fields_win_and_what_nobody_gives_is_named():
    assert resolve({"width": 8, "depth": 2}, {"width": None, "depth": 5}, "here") == {
        "width": 8,
        "depth": 5,
    }
    with pytest.raises(ValueError, match="heads missing in here"):
        resolve({"width": 8}, {"width": None, "heads": None}, "here")
    with pytest.raises(ValueError, match="here has heads 0; the smallest is 1"):
        resolve({"width": 8}, {"width": None, "heads": 0}, "here")


def test_activations_by_their_formulas():
    x = np.linspace(-4, 4, 33).astype(np.float32)
    gelu = x * 0.5 * (1 + erf(x / np.sqrt(2)))
    tanh = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(activation("gelu")(x), gelu, atol=1e-6)
    np.testing.assert_allclose(activation("gelu_tanh")(x), tanh, atol=1e-6)
    np.testing.assert_allclose(activation("quick_gelu")(x), x / (1 + np.exp(-1.702 * x)), atol=1e-6)
    np.testing.assert_array_equal(activation("relu")(x), np.maximum(x, 0))
    with pytest.raises(ValueError, match="Unknown activation 'relu7'"):
        activation("relu7")
