"""Tokens per second of a captioner on CPU: ours against transformers, in the same interleaved run.

    python experiments/benchmarks/decode_tokens.py                  # all: sets up the peer, once
    python experiments/benchmarks/decode_tokens.py --workloads greedy_b1 --rounds 2

A GPT-2 of 12 layers, width 768 and 50,257 tokens, every layer with cross-attention to the 197
tokens of one image; random weights, a prompt of one token, 64 new ones and no end token. Each
contender is a process of its own, compiled and warmed up beforehand; in every round they take
turns, and a ratio is the median over rounds of (peer's time / ours in that round), above 1 where
ours is faster.

What is equal: sizes, fp32, both cores. What is not: transformers' attention to the image goes
through scaled_dot_product_attention. `--dtypes int8` is ours with `Settings(int8=True)`; the peer
stays in fp32. The peer is installed in build/bench-venv (see workers.py).
"""

import sys

from workers import asked_for, compare, measure_each, options, work

LAYERS, WIDTH, HEADS, VOCAB, IMAGE_TOKENS = 12, 768, 12, 50_257, 197
NEW = 64

# batch, beams
WORKLOADS = {"greedy_b1": (1, 1), "greedy_b16": (16, 1), "beam5_b1": (1, 5)}


def image_tokens(batch):
    import numpy as np

    return np.random.default_rng(0).normal(size=(batch, IMAGE_TOKENS, WIDTH)).astype(np.float32)


def ours(workload, dtype):
    """mmjax's text decoder and generate; step() -> the number of tokens made."""
    import flax.linen as nn
    import jax
    import numpy as np
    from flax.core import meta

    from mmjax.decode.generate import Prepared, make_generate
    from mmjax.decode.settings import Settings
    from mmjax.models.text_decoder import TextDecoder

    class Captioner(nn.Module):
        window = 1024

        @nn.compact
        def __call__(self, batch, *, cache_length=0):
            decoder = {
                "depth": LAYERS,
                "heads": HEADS,
                "mlp_dim": 4 * WIDTH,
                "activation": "gelu_tanh",
                "epsilon": 1e-5,
                "cross_every": 1,
            }
            text = TextDecoder(VOCAB, WIDTH, self.window, decoder, name="text")
            mask, image = batch["text_mask"], batch.get("image_tokens")
            return text(batch["text"], mask, context=image, cache_length=cache_length)

    size, beams = WORKLOADS[workload]
    batch = {
        "text": np.zeros((size, 1), np.int32),
        "text_mask": np.ones((size, 1), bool),
        "image_tokens": image_tokens(size),
    }
    model = Captioner()
    params = jax.jit(lambda: meta.unbox(model.init(jax.random.key(0), batch)["params"]))()
    settings = Settings(NEW, beams=beams, int8=dtype == "int8")
    variables = Prepared(model, settings)(
        {"params": params}, batch
    )  # params themselves are dropped
    generate = make_generate(model, settings)
    return lambda: int(np.asarray(generate(variables, batch).lengths)[:, 0].sum())


def transformers(workload, dtype):
    """transformers' GPT2LMHeadModel with cross-attention, and its generate, in fp32."""
    del dtype
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    size, beams = WORKLOADS[workload]
    torch.set_num_threads(2)
    config = GPT2Config(
        add_cross_attention=True,
        n_layer=LAYERS,
        n_embd=WIDTH,
        n_head=HEADS,
        vocab_size=VOCAB,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = GPT2LMHeadModel(config).eval()
    image = torch.from_numpy(image_tokens(size))
    prompt = torch.zeros(size, 1, dtype=torch.long)

    def run():
        with torch.inference_mode():
            out = model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                encoder_hidden_states=image,
                max_new_tokens=NEW,
                min_new_tokens=NEW,
                num_beams=beams,
                do_sample=False,
                use_cache=True,
            )
        return (out.shape[1] - 1) * len(out)

    return run


CONTENDERS = {"ours": ours, "transformers": transformers}


def main():
    parser = options(__doc__.splitlines()[0], CONTENDERS, WORKLOADS, dtypes=["float32", "int8"])
    measure_each(
        parser.parse_args(),
        compare(__file__, lambda workload: NEW * WORKLOADS[workload][0], "tokens"),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        name, workload, dtype, steps = asked_for(sys.argv)
        work(name, workload, steps, lambda: CONTENDERS[name](workload["name"], dtype))
    else:
        main()
