"""Make tests/golden/gpt2/ with transformers' GPT-2 at a small random size.

    python tests/golden/make_gpt2.py

Made with torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3. The tensors are named as in the
published files: without "transformer.", and with the causal mask of each layer, "attn.bias".
"""

import torch
from golden_files import write
from safetensors.torch import load_file, save_file
from small_models import byte_level, continued, folder, padded, redraw
from transformers import GPT2Config, GPT2LMHeadModel


def main():
    out = folder(__file__)
    byte_level(out, 290, ["<|endoftext|>"], wrapped=False)
    config = GPT2Config(
        vocab_size=300,
        n_positions=24,
        n_embd=16,
        n_layer=3,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = redraw(GPT2LMHeadModel(config))
    model.save_pretrained(out)
    tensors = {
        k.removeprefix("transformer."): v for k, v in load_file(out / "model.safetensors").items()
    }
    causal = torch.tril(torch.ones(1, 1, 24, 24))
    tensors |= {f"h.{i}.attn.bias": causal.clone() for i in range(3)}
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    ids, mask = padded([13, 8], 13, 1, 300)
    write(out, **continued(model, ids, mask))


if __name__ == "__main__":
    main()
