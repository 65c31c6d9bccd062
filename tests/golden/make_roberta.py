"""Make tests/golden/roberta/ with transformers' RoBERTa at a small random size.

    python tests/golden/make_roberta.py

Made with torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3. The file is that of a model for
masked words, as published ones are: its tensors begin with "roberta." and there is a head besides.
"""

import torch
from golden_files import write
from small_models import byte_level, folder, padded, redraw
from transformers import RobertaConfig, RobertaForMaskedLM


def main():
    out = folder(__file__)
    byte_level(out, 290, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], wrapped=True)
    config = RobertaConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=18,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    model = redraw(RobertaForMaskedLM(config))
    model.save_pretrained(out)
    ids, mask = padded([11, 6, 2], 11, 5, 300, pad=config.pad_token_id)
    with torch.inference_mode():
        found = model.roberta(ids, mask.long(), output_hidden_states=True)
    write(out, text=ids.int(), text_mask=mask, text_layers=torch.stack(found.hidden_states))


if __name__ == "__main__":
    main()
