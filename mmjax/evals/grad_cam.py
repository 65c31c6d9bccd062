"""Grad-CAM of cross-attention: which parts of an image each word of its text is matched with."""

import numpy as np
from einops import rearrange

from mmjax.evals.attention_rollout import patch_grid


def middle(layers: int) -> int:
    """The layer that is shown: of six the third, which grounds words best (section 6.4)."""
    return (layers - 1) // 2


def grad_cam(weights: np.ndarray, gradients: np.ndarray, height: int, width: int) -> np.ndarray:
    """Attention weights times the positive part of their gradient, averaged over the heads.

    Args:
      weights: cross-attention of a layer `[..., heads, L, S]`, text to image tokens.
      gradients: of the logit of "matches", of the same shape.
      height, width: of the image in pixels.

    Returns:
      `[..., L, rows, columns]`, not negative; the class token of the image is left out.

    Source: Selvaraju et al. 2017 (arXiv 1610.02391), as in ALBEF, Li et al. 2021 (arXiv
    2107.07651), section 5.3, and the notebook of salesforce/ALBEF, visualization.ipynb.
    """
    extra, rows, _ = patch_grid(weights.shape[-1], height, width)
    maps = (weights * np.maximum(gradients, 0)).mean(-3)[..., extra:]
    return rearrange(maps, "... (row column) -> ... row column", row=rows)
