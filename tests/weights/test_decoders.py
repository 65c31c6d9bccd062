"""GPT-2 and Llama beside the originals: tests/golden/make_{gpt2,llama}.py."""

import numpy as np
import pytest
from parity import GOLDEN, close, expected, layers, outputs

from mmjax.decode.generate import make_generate
from mmjax.decode.settings import Settings
from mmjax.pretrained import load

NAMES = ("gpt2", "llama", "llama_tied")


@pytest.fixture(scope="module", params=NAMES)
def golden(request):
    return load(GOLDEN / request.param), expected(request.param)


def test_every_layer_and_the_logits_of_padded_texts(golden):
    loaded, want = golden
    batch = {name: want[name] for name in ("text", "text_mask")}
    seen = want["text_mask"]
    found = layers(loaded, batch, "text")
    close(found[:-1, seen], want["text_layers"][1:-1, seen])  # the last one is after the norm
    close(outputs(loaded, batch)["text_logits"][seen], want["text_logits"][seen])


def test_what_it_writes_with_a_cache(golden):
    loaded, want = golden
    written, start = want["written"], 6
    settings = Settings(written.shape[1] - start, end_ids=(), pad_id=0)
    prompts = {"text": written[:, :start], "text_mask": np.ones((1, start), bool)}
    found = make_generate(loaded.model, settings)(loaded.params, prompts)
    np.testing.assert_array_equal(np.asarray(found.tokens)[0, 0], written[0, start:])
