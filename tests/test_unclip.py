"""python -m mmjax.unclip: parts of two CLIPs are refused."""

import types

import numpy as np
import pytest

from mmjax.unclip import SHARED, Part, check_same_clip


def part(*arrays):
    """A part whose CLIP has these parameters."""
    params = {name: {"kernel": np.asarray(x, np.float32)} for name, x in zip(SHARED, arrays)}
    made = Part.__new__(Part)
    made.loaded = types.SimpleNamespace(params={**params, "backbone": {"x": np.ones(2)}})
    return made


def test_a_prior_of_another_clip_is_refused():
    check_same_clip(part([1, 2], [3]), part([1, 2], [3]))
    with pytest.raises(ValueError, match="prior was trained on another CLIP than the decoder"):
        check_same_clip(part([1, 2], [3]), part([1, 2.0000002], [3]))
