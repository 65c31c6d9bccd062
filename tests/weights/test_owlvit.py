"""OWL-ViT's and OWLv2's published weights beside the original: tests/golden/make_owlvit.py."""

import numpy as np
import pytest
from parity import close, fixture, layers_and_outputs

golden = fixture("owlvit", "owlv2")


@pytest.mark.parametrize("image", ["image", "wide"])  # as trained, 3 x 3 patches; 2 x 5
def test_detection_layer_by_layer_with_padding_queries(golden, image):
    loaded, want = golden
    batch = {"image": want[image], "text": want["text"], "text_mask": want["text_mask"]}
    blocks, found = layers_and_outputs(loaded, batch, "image")
    close(blocks, want[f"{image}_layers"][1:])
    valid = want["text_mask"].any(-1)
    shown = np.broadcast_to(valid[:, None], found["query_logits"].shape)
    close(found["query_logits"][shown], want[f"{image}_logits"][shown])
    assert (found["query_logits"][~shown] == want[f"{image}_logits"][~shown]).all()
    center, size = np.split(want[f"{image}_boxes"], 2, axis=-1)
    close(found["pred_boxes"], np.concatenate([center - size / 2, center + size / 2], -1))
    close(found["class_embed"], want[f"{image}_class_embed"])
    assert ("objectness_logits" in found) == (f"{image}_objectness" in want)
    if "objectness_logits" in found:
        close(found["objectness_logits"], want[f"{image}_objectness"])
    if image == "wide":
        close(found["text_embed"][:, 0], want["text_embed"])
        scores = found["logit_scale"] * found["image_embed"] @ found["text_embed"][:, 0].T
        close(scores, want["clip_logits"])
