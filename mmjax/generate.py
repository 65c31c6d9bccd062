r"""Generate text from a prompt or about an image, and print it token by token.

    python -m mmjax.generate --model=SmolLM2.gguf --prompt="The capital of" --temperature=0.7
    python -m mmjax.generate --model=runs/captioner --image=cat.png --image=dog.png
    python -m mmjax.generate --model=runs/flamingo --image=cat.png --image=dog.png \
        --prompt="<image>a cat<image>"
    python -m mmjax.generate --model=runs/llava --image=cat.png --prompt="What is this?"
    python -m mmjax.generate --model=runs/llava --image=cat.png --chat --tools=calculator,crop
    python -m mmjax.generate --model=runs/llava --audio=call.wav --chat \
        --tools=ocr,classifier,detector=owlvit-base-patch32,speech=whisper-base

The model is a workdir (its newest checkpoint) of a generative model, a published folder (GPT-2, a
Llama-style model, open_clip's CoCa), or a Llama-style GGUF file. A captioner or a CoCa generates
one text per image; a Flamingo's prompt has a placeholder, <image>, for each. A LLaVA answers a
prompt, about its images if there are any; with --chat it answers each line of the standard input,
and remembers the lines before it; --tools names those that it may call (mmjax/tools/table.py), with
the model of a tool after "=", and their results are shown in brackets. Without a temperature
decoding is greedy; see mmjax/decode/settings.py for all settings.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--model", {"required": True, "help": "a workdir, a published folder or a GGUF file"}),
        ("--prompt", {"default": "", "help": "the text to continue"}),
        ("--image", {"action": "append", "default": [], "help": "an image; may be repeated"}),
        ("--chat", {"action": "store_true", "help": "a conversation: each line is a turn"}),
        ("--tools", {"default": "", "help": "of a --chat, separated by commas"}),
        ("--audio", {"action": "append", "default": [], "help": "a recording for the tools"}),
        ("--max_new_tokens", {"type": int, "help": "default: as many as fit, at most 64"}),
        ("--temperature", {"type": float, "default": 0.0}),
        ("--top_k", {"type": int, "default": 0}),
        ("--top_p", {"type": float, "default": 1.0}),
        ("--beams", {"type": int, "default": 1, "help": "prints the best text when finished"}),
        ("--beam_groups", {"type": int, "default": 1}),
        ("--diversity_penalty", {"type": float, "default": 0.0}),
        ("--length_penalty", {"type": float, "default": 1.0}),
        ("--min_new_tokens", {"type": int, "default": 0}),
        ("--no_repeat_ngram", {"type": int, "default": 0}),
        ("--repetition_penalty", {"type": float, "default": 1.0}),
        ("--int8", {"action": "store_true", "help": "faster: kernels and activations in int8"}),
        ("--seed", {"type": int, "default": 0}),
    )

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import conversation
from mmjax.chat import Chat, Result
from mmjax.data import image_files
from mmjax.data.text.image_places import PLACE
from mmjax.decode.prompts import pad_prompts
from mmjax.pretrained import Pretrained
from mmjax.text_stream import make_text_stream, open_model, settings_for
from mmjax.tools.table import OF_RECORDINGS, named


def make_batches(
    loaded: Pretrained, prompt: str, images: Sequence[np.ndarray]
) -> list[dict[str, np.ndarray]]:
    """The inputs of the model: a batch of one row for each text to generate.

    Args:
      images: from `loaded.image`, uint8 [H, W, 3].

    Raises:
      ValueError: too few or too many images for the model or the prompt, or an empty prompt where
        the tokenizer has no begin token.
    """
    name, words, place = loaded.config["name"], loaded.tokenizer, loaded.config.get("image_token")
    if "image" not in loaded.config and images:
        raise ValueError(f"A '{name}' takes no images: leave --image out.")
    if "image" in loaded.config and not images:
        raise ValueError(f"A '{name}' needs an image: give one with --image=FILE.")
    if place is None:
        text = pad_prompts(words.prompts([prompt]), words.pad_id)
        return [text | {"image": image[None]} for image in images] or [text]
    parts = (prompt or PLACE).split(PLACE)
    if len(parts) - 1 != len(images):
        raise ValueError(
            f"The prompt has {len(parts) - 1} placeholders {PLACE} and there are {len(images)} "
            "images: give one placeholder per image."
        )
    begin = words.prompts([""])[0]
    first, *others = (ids[len(begin) :] for ids in words.prompts(parts))
    row = [*begin, *first]
    for i, ids in enumerate(others):  # a text ends before the next image, as in training
        row += [words.eos_id] * (i > 0) + [place, *ids]
    return [pad_prompts([row], words.pad_id) | {"image": np.stack(images)[None]}]


def _read(loaded: Pretrained, path: str) -> np.ndarray:
    data = image_files.read(path)
    with conversation.naming(path):
        return loaded.image(data)


def generate(
    model: str,
    prompt: str = "",
    images: Sequence[str] = (),
    *,
    seed: int = 0,
    max_new_tokens: int | None = None,
    **decode: Any,
) -> list[Iterator[str]]:
    """For each text its pieces, as they are generated.

    Args:
      model: a workdir, a published folder or a GGUF file; images: paths.
      max_new_tokens: None: as many as fit, at most 64; decode: further fields of `Settings`.

    Raises:
      ValueError: see `open_model`, `make_batches` and `Settings`; an image that cannot be read.
    """
    loaded = open_model(model, decode.get("int8", False))
    if loaded.config["name"] == "llava":
        messages = conversation.first_turn(prompt, len(images))
        batches = [conversation.make_batch(loaded, messages, images)]
    else:
        reads = "image" in loaded.config
        batches = make_batches(
            loaded, prompt, [_read(loaded, path) if reads else path for path in images]
        )
    settings = settings_for(loaded, batches[0], max_new_tokens, **decode)
    stream = make_text_stream(loaded, settings)
    return [stream(batch, seed) for batch in batches]


def chat(
    model: str, turns: Iterable[str], images: Sequence[str] = (), **settings: Any
) -> Iterator[Iterator[str]]:
    """For each turn of a user the pieces of the answer, which is part of the next prompt.

    A turn whose pieces raise ValueError, as one that does not fit into the window, is left out of
    the conversation, and the next one may follow.

    Args:
      images: paths; the first turn is about them.
      settings: of `Chat`.

    Raises:
      ValueError: see `open_model`, `Chat`, `Chat.check`; of a turn, `Chat.answer`.
    """
    answers = Chat(open_model(model, settings.get("int8", False)), model, **settings)
    answers.check(images)
    messages: list[dict[str, str]] = []
    given: list[str | bytes] = list(images)

    def answer(text: str) -> Iterator[str]:
        before = [*messages], [*given]
        messages.extend(conversation.first_turn(text, 0 if messages else len(given)))
        try:
            for event in answers.answer(messages, given):
                if isinstance(event, Result):
                    text = event.content if isinstance(event.content, str) else PLACE
                    yield f" [{event.call.name}: {text}] "
                elif isinstance(event, str):  # a call is in the text already
                    yield event
        except ValueError:
            messages[:], given[:] = before
            raise

    for text in turns:
        yield answer(text)


def converse(turns: Iterable[Iterable[str]]) -> None:
    """Print the answers of a `chat`, and why a turn has none.

    Raises:
      ValueError: none of the turns has an answer.
    """
    answered, refused = 0, None
    for pieces in turns:
        try:
            for piece in pieces:
                print(piece, end="", flush=True)
            answered += 1
        except ValueError as error:
            if not command.is_refusal(error):
                raise
            print(f"error: {str(error).rstrip('.')}; this turn is left out.", file=sys.stderr)
            refused = error
        print()
    if refused and not answered:
        raise ValueError("No turn has an answer: see above.")


def check_recordings(tools: Iterable[str], audio: Sequence[str]) -> None:
    """Raise ValueError for recordings without a tool that reads them, one without any, or a path
    that is no file."""
    hears = [name for name in tools if name in OF_RECORDINGS]
    if audio and not hears:
        raise ValueError("--audio is for the tools: add --tools=speech=MODEL.")
    if hears and not audio:
        raise ValueError(f"The tool '{hears[0]}' reads a recording: add --audio=FILE.")
    for path in audio:
        if not Path(path).is_file():
            raise ValueError(f"There is no recording '{path}'.")


def main() -> None:
    """The command."""
    own = ("model", "image", "overrides", "chat", "tools", "audio")
    settings = {k: v for k, v in vars(ARGS).items() if k not in own}
    if ARGS.chat:
        first = [settings.pop("prompt")]
        turns = (line.strip() for line in itertools.chain(filter(None, first), sys.stdin))
        tools = named(ARGS.tools)
        check_recordings(tools, ARGS.audio)
        given = {"tools": tools, "audio": ARGS.audio}
        converse(chat(ARGS.model, filter(None, turns), ARGS.image, **given, **settings))
        return
    if ARGS.tools or ARGS.audio:
        raise ValueError("--tools, and --audio for them, are of a conversation: add --chat.")
    texts = generate(ARGS.model, images=ARGS.image, **settings)
    for i, pieces in enumerate(texts):
        title = f"{ARGS.image[i]}: " if len(texts) > 1 else ""
        print(title + ARGS.prompt, end="", flush=True)
        begun = bool(ARGS.prompt)
        for piece in pieces:
            piece = piece if begun else piece.lstrip()
            begun |= bool(piece)
            print(piece, end="", flush=True)
        print()


if __name__ == "__main__":
    command.run(main)
