"""Published models in one file: those whose tensors are not the model's are one sentence."""

import types

import pytest

from mmjax.weights import one_file
from mmjax.weights.families import compact_transformers, efficientnet_lite, glide

CCT = {
    "tokenizer.conv_layers.0.0.weight": (128, 3, 3, 3),
    "classifier.fc.weight": (10, 128),
    "classifier.blocks.0.linear1.weight": (128, 128),
    "classifier.positional_emb": (1, 64, 128),
    "classifier.attention_pool.weight": (1, 128),
}
GLIDE = {f"input_blocks.{i}.0.weight": (192, 3, 3, 3) for i in range(16)} | {
    "transformer_proj.weight": (768, 512),
    "positional_embedding": (128, 512),
    "token_embedding.weight": (50258, 512),
}


@pytest.mark.parametrize(
    ("shapes", "kind"), [(CCT, "compact_transformers"), (GLIDE, glide.TYPE)], ids=["cct", "glide"]
)
def test_tensors_that_are_missing_or_have_other_axes_are_one_sentence(
    shapes, kind, tmp_path, monkeypatch
):
    given = {}
    for module in (one_file, glide, compact_transformers, efficientnet_lite):
        monkeypatch.setattr(module, "TorchFile", lambda path: types.SimpleNamespace(shapes=given))
    given |= shapes
    assert one_file.open_torch(tmp_path / "a.pth").config["model_type"] == kind
    damaged = 0
    for name, shape in shapes.items():
        for other in (None, (), shape[:1], (1, 0)):
            given.clear()
            given |= {k: v for k, v in shapes.items() if k != name}
            given |= {} if other is None else {name: other}
            try:
                one_file.open_torch(tmp_path / "a.pth")
            except ValueError as error:
                assert "a.pth' is" in str(error)
                damaged += "is damaged: a tensor of " + kind in str(error)
    assert damaged >= 6
