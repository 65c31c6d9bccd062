"""Continue a text, token by token on the terminal.

    python -m mmjax.generate --model=runs/lm --prompt="Once upon a time"
    python -m mmjax.generate --model=SmolLM2.gguf --prompt="The capital of" --temperature=0.7

The model is a language model of ours (a workdir: its newest checkpoint), a published GPT-2 or
Llama-style one (its folder), or a Llama-style GGUF file. Without a temperature every token is the
most probable one.
"""

# ruff: noqa: E402
from mmjax import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--model", {"required": True, "help": "a workdir, a published folder or a GGUF file"}),
        ("--prompt", {"required": True, "help": "the text to continue"}),
        ("--max_new_tokens", {"type": int, "default": 64}),
        ("--temperature", {"type": float, "default": 0.0}),
        ("--top_k", {"type": int, "default": 0}),
        ("--top_p", {"type": float, "default": 1.0}),
        ("--repetition_penalty", {"type": float, "default": 1.0}),
        ("--int8", {"action": "store_true", "help": "faster: kernels and activations in int8"}),
        ("--seed", {"type": int, "default": 0}),
    )

from collections.abc import Iterator
from typing import Any

from mmjax import pretrained
from mmjax.data.tokenizer import Tokenizer
from mmjax.decode.generate import make_stream
from mmjax.decode.prompts import Detokenizer, pad_prompts
from mmjax.decode.settings import Settings


def open_model(path: str) -> tuple[Any, Any, Tokenizer]:
    """Model, parameters and tokenizer of a language model that `mmjax.load` can load.

    Raises:
      ValueError: no model there, one of another system, or one without a tokenizer.
    """
    loaded = pretrained.load(path)
    if loaded.config["name"] != "language_model":
        raise ValueError(
            f"'{path}' holds a '{loaded.config['name']}'; this command continues the text of a "
            "'language_model'."
        )
    if loaded.tokenizer is None:
        raise ValueError(f"'{path}' holds no tokenizer: put its tokenizer.json there.")
    return loaded.model, loaded.params, loaded.tokenizer


def pieces(
    model: Any,
    params: Any,
    tokenizer: Tokenizer,
    prompt: str,
    settings: Settings,
    seed=0,
) -> Iterator[str]:
    """The continuation's text, piece by piece as it comes.

    Raises:
      ValueError: a prompt that is empty or leaves no room in the model's window.
    """
    batch = pad_prompts(tokenizer.prompts([prompt]), settings.pad_id)
    text = Detokenizer(tokenizer.decode_raw)
    for token in make_stream(model, settings)(params, batch, seed):
        if token[0] not in settings.end_ids:
            yield text.push(token[0])
    yield text.flush()


def main() -> None:
    """The command."""
    model, params, tokenizer = open_model(ARGS.model)
    settings = Settings(
        ARGS.max_new_tokens,
        end_ids=(tokenizer.eos_id,),
        pad_id=tokenizer.pad_id,
        temperature=ARGS.temperature,
        top_k=ARGS.top_k,
        top_p=ARGS.top_p,
        repetition_penalty=ARGS.repetition_penalty,
        int8=ARGS.int8,
    )
    print(ARGS.prompt, end="", flush=True)
    for piece in pieces(model, params, tokenizer, ARGS.prompt, settings, ARGS.seed):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    command.run(main)
