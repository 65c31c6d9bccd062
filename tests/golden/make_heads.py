"""Make tests/golden/{bert,roberta}_{text,tokens}: small random BERTs and RoBERTas with a head for
the classes of a text, or of each of its tokens, and what they give for padded texts.

    pip install torch==2.13.0 transformers==5.23.0 && python tests/golden/make_heads.py

The activations are two that no other golden folder has: relu and gelu_fast.
"""

import torch
import transformers as t
from golden_files import write
from small_models import folder, padded, redraw

SIZES = {
    "vocab_size": 160,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 18,
}
NAMES = {"0": "bad", "1": "fair", "2": "good"}
MODELS = {
    "bert_text": (t.BertForSequenceClassification, t.BertConfig, "relu"),
    "bert_tokens": (t.BertForTokenClassification, t.BertConfig, "gelu_fast"),
    "roberta_text": (t.RobertaForSequenceClassification, t.RobertaConfig, "gelu_fast"),
    "roberta_tokens": (t.RobertaForTokenClassification, t.RobertaConfig, "relu"),
}


def main():
    for name, (model, config, act) in MODELS.items():
        out = folder(__file__, name)
        model = redraw(model(config(**SIZES, hidden_act=act, id2label=NAMES)))
        model.save_pretrained(out)
        ids, mask = padded([11, 6, 2], 11, 5, 160, pad=model.config.pad_token_id)
        with torch.inference_mode():
            logits = model(ids, mask.long()).logits
        write(out, text=ids.int(), text_mask=mask, logits=logits)


if __name__ == "__main__":
    main()
