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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import conversation, pretrained
from mmjax.data.text.calls import read_call, until_call
from mmjax.decode.generate import make_generate, make_stream
from mmjax.decode.prompts import Detokenizer, pad_prompts
from mmjax.decode.settings import Settings
from mmjax.decode.tool_calls import WellFormedCalls
from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained
from mmjax.tools.run import Tool, run
from mmjax.tools.table import named

PLACE = "<image>"  # placeholder of an image in a prompt
MOST_CALLS = 4  # of tools in one answer
NO_ROOM = "error: the result is too long."


def open_model(path: str) -> Pretrained:
    """Load a generative model; see `mmjax.load`.

    Raises:
      ValueError: no model there, one that does not generate text, or one without a tokenizer.
    """
    loaded = pretrained.load(path)
    name = loaded.config["name"]
    if make_system({"model": loaded.config}).generate is None:
        raise ValueError(f"'{path}' holds a '{name}', which does not generate text.")
    loaded.need_tokenizer()
    return loaded


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


def make_text_stream(loaded: Pretrained, settings: Settings) -> Callable[..., Iterator[str]]:
    """A function (batch, seed=0) -> the continuation's text, in pieces as it is generated.

    With beam search the whole text is one piece.

    Raises:
      ValueError: when called, a prompt that is empty or leaves no room in the model's window.
    """
    if settings.beams > 1:
        generate = make_generate(loaded.model, settings)

        def stream(*given):
            return np.asarray(generate(*given).tokens)[:, 0].T  # the best beam's
    else:
        stream = make_stream(loaded.model, settings)

    def stream_text(batch: Mapping[str, np.ndarray], seed: int = 0) -> Iterator[str]:
        text = Detokenizer(loaded.tokenizer.decode_raw)
        for token in stream(loaded.variables, batch, seed):
            if token[0] in settings.end_ids:
                break
            yield text.push(token[0])
        yield text.flush()

    return stream_text


def _read(loaded: Pretrained, path: str) -> np.ndarray:
    try:
        return loaded.image(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot read the image '{path}': {error}") from None


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
    loaded = open_model(model)
    if loaded.config["name"] == "llava":
        messages = conversation.first_turn(prompt, len(images))
        batches = [conversation.make_batch(loaded, messages, images)]
    else:
        reads = "image" in loaded.config
        batches = make_batches(
            loaded, prompt, [_read(loaded, path) if reads else path for path in images]
        )
    settings = _settings(loaded, batches[0], max_new_tokens, **decode)
    stream = make_text_stream(loaded, settings)
    return [stream(batch, seed) for batch in batches]


def _settings(loaded: Pretrained, batch: Mapping, max_new_tokens: int | None, **decode) -> Settings:
    """Settings for a batch, by default of as many tokens as fit, at most 64."""
    room = loaded.model.window - int(batch["text_mask"].sum())
    place = loaded.config.get("image_token")
    return Settings(
        max(1, min(64, room)) if max_new_tokens is None else max_new_tokens,
        end_ids=loaded.tokenizer.end_ids,
        pad_id=loaded.tokenizer.pad_id,
        forbidden_ids=() if place is None else (place,),
        **decode,
    )


def chat(
    model: str,
    turns: Iterable[str],
    images: Sequence[str] = (),
    *,
    tools: Mapping[str, Tool] | None = None,
    audio: Sequence[str] = (),
    seed: int = 0,
    max_new_tokens: int | None = None,
    **decode: Any,
) -> Iterator[Iterator[str]]:
    """For each turn of a user the pieces of the answer, which is part of the next prompt.

    Args:
      images: paths; the first turn is about them.
      tools: those that the model may call, at most `MOST_CALLS` times in an answer, which ends
        where not even an error fits into the window.
      audio: paths of recordings, for the tools.

    Raises:
      ValueError: as `generate`, a model that is no LLaVA, or one without a chat template.
    """
    loaded = open_model(model)
    if loaded.config["name"] != "llava":
        raise ValueError(f"'{model}' holds a '{loaded.config['name']}': --chat takes a 'llava'.")
    if loaded.need_tokenizer().chat_template is None:
        raise ValueError(f"'{model}' has no chat template: ask it one --prompt, without --chat.")
    if tools:
        decode["processors"] = (WellFormedCalls.of(loaded.tokenizer, tools),)
    messages: list[dict[str, str]] = []
    given: list[str | bytes] = list(images)

    def turn() -> Iterator[str]:
        batch = conversation.make_batch(loaded, messages, given)
        stream = make_text_stream(loaded, _settings(loaded, batch, max_new_tokens, **decode))
        text = ""
        for piece in stream(batch, seed):
            text += piece
            yield piece
        text = until_call(text) if tools else text
        text = text.replace(PLACE, " ").strip()  # no place of an image in the next prompt
        messages.append({"role": "assistant", "content": text or "..."})

    def add_result(result: str | bytes) -> bool:
        """Add a tool's message; False, and nothing is added, if it leaves no room for a token."""
        image = isinstance(result, bytes)
        content = PLACE if image else result.strip() or "..."
        said, seen = [*messages, {"role": "tool", "content": content}], [*given, *[result] * image]
        batch = conversation.make_batch(loaded, said, seen)
        if int(batch["text_mask"].sum()) + (max_new_tokens or 1) > loaded.model.window:
            return False
        messages[:], given[:] = said, seen
        return True

    def answer() -> Iterator[str]:
        for calls in range(MOST_CALLS + 1):
            yield from turn()
            call = read_call(messages[-1]["content"]) if tools else None
            if call is None or calls == MOST_CALLS:
                return
            images = [conversation.read_image(image) for image in given]
            result = run(call, tools, images, audio)
            added = add_result(result)
            if not added:
                result = NO_ROOM
                added = add_result(result)
            yield f" [{call.name}: {PLACE if isinstance(result, bytes) else result}] "
            if not added:
                return

    for text in turns:
        messages += conversation.first_turn(text, 0 if messages else len(given))
        yield answer()


def main() -> None:
    """The command."""
    own = ("model", "image", "overrides", "chat", "tools", "audio")
    settings = {k: v for k, v in vars(ARGS).items() if k not in own}
    if ARGS.chat:
        first = [settings.pop("prompt")]
        turns = (line.strip() for line in itertools.chain(filter(None, first), sys.stdin))
        tools = named(ARGS.tools)
        if ARGS.audio and not tools:
            raise ValueError("--audio is for the tools: add --tools=speech=MODEL.")
        given = {"tools": tools, "audio": ARGS.audio}
        for pieces in chat(ARGS.model, filter(None, turns), ARGS.image, **given, **settings):
            for piece in pieces:
                print(piece, end="", flush=True)
            print()
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
