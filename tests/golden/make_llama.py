"""Make tests/golden/{llama,llama_tied}/ with transformers' Llama at a small random size.

    python tests/golden/make_llama.py

Made with torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3. `llama` has a head of its own,
lies in shards with an index, and its heads are wider than width / heads; `llama_tied`, as SmolLM2,
has none, and is in bfloat16.
"""

import torch
from golden_files import write
from small_models import byte_level, continued, folder, padded, redraw
from transformers import LlamaConfig, LlamaForCausalLM


def main():
    make("llama", tied=False, head_dim=6, max_shard_size="60KB")
    make("llama_tied", tied=True, head_dim=4, dtype=torch.bfloat16)


def make(name, tied, head_dim, dtype=torch.float32, **save):
    out = folder(__file__, name)
    byte_level(out, 290, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], wrapped=False)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        intermediate_size=28,
        max_position_embeddings=32,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = redraw(LlamaForCausalLM(config)).to(dtype)
    model.save_pretrained(out, **save)
    model = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    ids, mask = padded([13, 8], 13, 3, 300)
    write(out, **continued(model, ids, mask, eos_token_id=299))


if __name__ == "__main__":
    main()
