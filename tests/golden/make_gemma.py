"""Make tests/golden/{gemma,gemma2}/ with transformers at random sizes.

    python tests/golden/make_gemma.py

Made with torch 2.13.0 and transformers 5.23.0. `gemma2` has a window shorter than its texts in two
of three layers, and caps that the logits of attention and of the head come near to.
"""

from golden_files import write
from small_models import continued, folder, padded, redraw
from transformers import Gemma2Config, Gemma2ForCausalLM, GemmaConfig, GemmaForCausalLM

SIZES = {
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 6,
    "intermediate_size": 28,
    "vocab_size": 60,
    "max_position_embeddings": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA2 = {"num_hidden_layers": 3, "num_key_value_heads": 2, "sliding_window": 5}
GEMMA2 |= {"query_pre_attn_scalar": 7, "attn_logit_softcapping": 1.5}
GEMMA2 |= {"final_logit_softcapping": 2.5}


def main():
    make("gemma", GemmaForCausalLM(GemmaConfig(**SIZES)))
    make("gemma2", Gemma2ForCausalLM(Gemma2Config(**SIZES | GEMMA2)))


def make(name, model):
    out = folder(__file__, name)
    for parameter, weight in redraw(model).named_parameters():
        if "norm" in parameter:
            weight.data -= 1  # Gemma stores the difference from 1
        if "q_proj" in parameter:
            weight.data *= 0.5  # else rounding decides what attends to what
    model.save_pretrained(out)
    model.set_attn_implementation("eager")
    ids, mask = padded([13, 8], 13, 3, 60)
    write(out, **continued(model, ids, mask, eos_token_id=59))


if __name__ == "__main__":
    main()
