"""Make tests/golden/{llama,llama_tied,llama3,mistral,qwen2}/ with transformers at random sizes.

    python tests/golden/make_llama.py

Made with torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3. `llama` has a head of its own and
heads wider than width / heads, and is sharded with an index; `llama_tied`, as SmolLM2, has no head,
and is in bfloat16. `llama3` has biases everywhere and scaled rotary positions, also of the other
SCALINGS; `mistral` a window shorter than its texts; `qwen2` biases of queries, keys and values.
"""

import copy

import torch
from golden_files import write
from small_models import byte_level, continued, folder, padded, redraw, write_json
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 20,
    "vocab_size": 60,
    "max_position_embeddings": 48,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ORIGINAL = {"original_max_position_embeddings": 40}
SCALINGS = {
    "llama3": {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **ORIGINAL},
    "linear": {"factor": 3.0},
    "yarn": {"factor": 4.0, **ORIGINAL},
    "yarn_betas": {"factor": 2.5, "beta_fast": 3.0, "beta_slow": 0.5, "truncate": False},
    "yarn_mscale": {"factor": 8.0, "mscale": 1.2, "mscale_all_dim": 0.7, **ORIGINAL},
    "yarn_magnitude": {"factor": 8.0, "attention_factor": 0.8, **ORIGINAL},
    "longrope": {
        "factor": 2.0,
        "short_factor": [1.0, 1.5, 2.0, 4.0, 7.0],
        "long_factor": [1.0, 1.5, 2.0, 4.0, 7.0],
        **ORIGINAL,
    },
}


def main():
    make("llama", tied=False, head_dim=6, max_shard_size="60KB")
    make("llama_tied", tied=True, head_dim=4, dtype=torch.bfloat16)
    scaled(folder(__file__, "llama3"))
    small("mistral", MistralForCausalLM(MistralConfig(**SIZES, head_dim=6, sliding_window=5)))
    rope = {"rope_type": "default", "rope_theta": 1e6}
    small("qwen2", Qwen2ForCausalLM(Qwen2Config(**SIZES, rope_parameters=rope)))


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


def scaled(out):
    """A model with `llama3` positions; and its logits with the same weights and other scalings."""
    config = LlamaConfig(
        **SIZES,
        head_dim=10,
        attention_bias=True,
        mlp_bias=True,
        rope_parameters=rope_parameters("llama3"),
    )
    model = redraw(LlamaForCausalLM(config))
    model.save_pretrained(out)
    ids, mask = padded([13, 8], 13, 3, 60)
    found = continued(model, ids, mask, eos_token_id=59)
    for name in SCALINGS:
        other = copy.deepcopy(config)
        other.rope_parameters = rope_parameters(name)
        other = LlamaForCausalLM.from_pretrained(out, config=other).eval()
        with torch.inference_mode():
            found[f"text_logits_{name}"] = other(ids, attention_mask=mask.long()).logits
    write(out, **found)
    write_json(out / "scalings.json", {name: rope_parameters(name) for name in SCALINGS})


def rope_parameters(name):
    return {"rope_type": name.partition("_")[0], "rope_theta": 500.0, **SCALINGS[name]}


def small(name, model):
    out = folder(__file__, name)
    redraw(model).save_pretrained(out)
    ids, mask = padded([13, 8], 13, 3, 60)
    write(out, **continued(model, ids, mask, eos_token_id=59))


if __name__ == "__main__":
    main()
