"""Continue a text, token by token on the terminal.

    python -m mmjax.generate --workdir=runs/lm --prompt="Once upon a time"
    python -m mmjax.generate --gguf=SmolLM2.gguf --prompt="The capital of" --temperature=0.7

The model is a language model of ours (the newest checkpoint of a workdir) or a Llama-style one in a
GGUF file. Without a temperature every token is the most probable one.
"""

# ruff: noqa: E402
from mmjax import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--workdir", {"help": "a run of a language model"}),
        ("--gguf", {"help": "a GGUF file"}),
        ("--prompt", {"required": True, "help": "the text to continue"}),
        ("--max_new_tokens", {"type": int, "default": 64}),
        ("--temperature", {"type": float, "default": 0.0}),
        ("--top_k", {"type": int, "default": 0}),
        ("--top_p", {"type": float, "default": 1.0}),
        ("--repetition_penalty", {"type": float, "default": 1.0}),
        ("--seed", {"type": int, "default": 0}),
    )

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flax import traverse_util

from mmjax import evaluate, models
from mmjax.data import tokenizers
from mmjax.decode.generate import make_stream
from mmjax.decode.prompts import Detokenizer, pad_prompts
from mmjax.decode.settings import Settings
from mmjax.weights import llama
from mmjax.weights.gguf import GGUF


def open_gguf(path: str) -> tuple[Any, Any, tokenizers.Tokenizer]:
    """Model, parameters and tokenizer of a GGUF file."""
    config, params, _ = llama.read(GGUF(path))
    model = models.make_model({"model": config})
    return model, traverse_util.unflatten_dict(params, sep="/"), tokenizers.from_gguf(path)


def open_workdir(workdir: str) -> tuple[Any, Any, tokenizers.Tokenizer]:
    """Model, parameters and tokenizer of a run's newest checkpoint.

    Raises:
      ValueError: no checkpoint there, or one of another system than a language model.
    """
    if not (Path(workdir) / "checkpoints").is_dir():
        raise ValueError(f"There is no run in '{workdir}': it has no folder checkpoints.")
    run, params, _ = evaluate.open_run(Path(workdir))
    if run.config.model.name != "language_model":
        raise ValueError(
            f"'{workdir}' holds a '{run.config.model.name}'; this command continues the text of a "
            "'language_model'."
        )
    return run.model, params, run.tokenizer


def pieces(
    model: Any,
    params: Any,
    tokenizer: tokenizers.Tokenizer,
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
    if bool(ARGS.workdir) == bool(ARGS.gguf):
        raise ValueError("Give one of --workdir and --gguf: where the language model is.")
    opened = open_workdir(ARGS.workdir) if ARGS.workdir else open_gguf(ARGS.gguf)
    model, params, tokenizer = opened
    settings = Settings(
        ARGS.max_new_tokens,
        end_ids=(tokenizer.eos_id,),
        pad_id=tokenizer.pad_id,
        temperature=ARGS.temperature,
        top_k=ARGS.top_k,
        top_p=ARGS.top_p,
        repetition_penalty=ARGS.repetition_penalty,
    )
    print(ARGS.prompt, end="", flush=True)
    for piece in pieces(model, params, tokenizer, ARGS.prompt, settings, ARGS.seed):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    command.run(main)
