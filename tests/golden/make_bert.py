"""Make tests/golden/{bert,minilm}/ with transformers' BERT at a small random size.

    python tests/golden/make_bert.py

Needs torch, transformers, tokenizers and safetensors, which mmjax does not need to run; the folders
were made with torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3. `minilm` has the layout of
sentence-transformers: mean pooling and unit length, in half precision.
"""

import torch
from golden_files import write
from small_models import folder, padded, redraw, wordpiece, write_json
from transformers import BertConfig, BertModel


def main():
    make("bert", seed=0)
    out, model, ids, mask, hidden = make("minilm", seed=1, half=True)
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    write_json(
        out / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(
                [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
            )
        ],
    )
    (out / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{m}": m == "mean_tokens" for m in ("cls_token", "mean_tokens")}
    write_json(out / "1_Pooling/config.json", {"word_embedding_dimension": 24, **modes})
    write_json(out / "sentence_bert_config.json", {"max_seq_length": 16, "do_lower_case": False})
    write(
        out,
        text=ids.int(),
        text_mask=mask,
        text_features=mean,
        text_embed=torch.nn.functional.normalize(mean),
    )


def make(name, seed, half=False):
    """A folder of that name; with everything in expected.safetensors but what pools the tokens."""
    out = folder(__file__, name)
    wordpiece(out, 150)
    config = BertConfig(
        vocab_size=160,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=20,
        type_vocab_size=2,
    )
    model = redraw(BertModel(config), seed)
    if half:  # the outputs are those of the rounded weights
        model = model.half()
        model.save_pretrained(out)
        model = model.float()
    else:
        model.save_pretrained(out)
    ids, mask = padded([12, 7, 3], 12, 5, 160, seed=seed)
    segment = (torch.arange(12)[None] >= torch.tensor([[5], [4], [12]])).long() * mask
    with torch.inference_mode():
        alone = model(ids, mask.long(), output_hidden_states=True)
        pair = model(ids, mask.long(), segment)
    write(
        out,
        text=ids.int(),
        text_mask=mask,
        text_segment=segment.int(),
        pooled=alone.pooler_output,
        pooled_of_pair=pair.pooler_output,
        text_layers=torch.stack(alone.hidden_states),
    )
    return out, model, ids, mask, alone.last_hidden_state


if __name__ == "__main__":
    main()
