#!/usr/bin/env bash
# BLIP's text decoder ignores encoder_attention_mask: padding of a question changes the answers.
#
# Versions: transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# A decoder with cross-attention is expected to attend to the tokens that encoder_attention_mask
# marks. BertLMHeadModel does: with two padded tokens more in its context, its logits are the same.
#
# Seen: the logits of BlipForQuestionAnswering's text_decoder move by 0.6 where its context gets two
# padded tokens more, which the mask marks as such; the tokens of the question itself are equal, as
# the encoder does mask its padding. So the answers of a batch of questions depend on the longest
# one, and differ from those of each question alone.
#
# What to do: generate answers for questions of equal length, one batch per length.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    transformers==5.23.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
import transformers as t

torch.manual_seed(0)
sizes = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 40,
}
special = {"bos_token_id": 38, "sep_token_id": 39, "eos_token_id": 39, "pad_token_id": 0}
text = {**sizes, **special, "max_position_embeddings": 16, "encoder_hidden_size": 16}
image = {k: v for k, v in sizes.items() if k != "vocab_size"}
blip = t.BlipForQuestionAnswering(
    t.BlipConfig(text_config=text, vision_config={**image, "image_size": 16, "patch_size": 8})
)
bert = t.BertLMHeadModel(
    t.BertConfig(**sizes, **special, is_decoder=True, add_cross_attention=True)
)
for model in (blip, bert):
    model.eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.5)  # so that attention is not uniform
with torch.no_grad():
    seen = blip.vision_model(pixel_values=torch.rand(1, 3, 16, 16)).last_hidden_state

    def question(ids, mask):
        return blip.text_encoder(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.tensor([mask]),
            encoder_hidden_states=seen,
        ).last_hidden_state

    short, padded = [1, 1, 1], [1, 1, 1, 0, 0]
    one, more = question([5, 6, 39], short), question([5, 6, 39, 0, 0], padded)
    moved = {"question": (one - more[:, :3]).abs().max().item()}
    for name, decoder in (("blip", blip.text_decoder), ("bert", bert)):
        logits = [
            decoder(
                input_ids=torch.tensor([[38, 7]]),
                encoder_hidden_states=context,
                encoder_attention_mask=torch.tensor([mask]),
            ).logits
            for context, mask in ((one, short), (more, padded))
        ]
        moved[name] = (logits[0] - logits[1]).abs().max().item()
print("moved by padding:", moved)
sys.exit(0 if moved["question"] < 1e-4 and moved["bert"] < 1e-4 and moved["blip"] > 0.1 else 1)
PY
