r"""Transcribe recordings with a Whisper model, or translate them to English.

    python -m mmjax.transcribe talk.mp3 --model=whisper-base
    python -m mmjax.transcribe calls/*.wav --model=whisper-base --language=fr --task=translate \
        --batch_size=8 --format=srt,json --output=texts

The model is a published folder: of transformers, of openai's tensors, or CTranslate2. Recordings
are files that libsndfile reads (WAV, FLAC, OGG, MP3), of any length and rate.

One window of 30 seconds is decoded after the other, and reads the text so far. With a --batch_size
above 1, windows of all recordings are decoded together and read no text: faster, also for many
short recordings.
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("files", {"nargs": "+", "help": "recordings"}),
        ("--model", {"required": True, "help": "a published folder of a Whisper model"}),
        ("--task", {"default": "transcribe", "help": "or translate, to English"}),
        ("--language", {"help": "a code such as en; default: detected"}),
        ("--format", {"help": "txt, srt, vtt, json, by commas; default: print the segments"}),
        ("--output", {"default": ".", "help": "folder of the files"}),
        ("--word_timestamps", {"action": "store_true", "help": "also of each word, for json"}),
        ("--batch_size", {"type": int, "default": 1, "help": "windows decoded together"}),
        ("--beams", {"type": int, "default": 1, "help": "beam search instead of greedy decoding"}),
        ("--no_carry_over", {"action": "store_true", "help": "a window does not read the text"}),
        ("--int8", {"action": "store_true", "help": "the decoder's kernels in int8"}),
        ("--seed", {"type": int, "default": 0}),
    )

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mmjax import pretrained, storage
from mmjax.data.text.special_tokens import not_speech, special_tokens, text_ids
from mmjax.decode.settings import Settings
from mmjax.decode.timestamps import NotFirst, TimestampRules
from mmjax.pretrained import Pretrained
from mmjax.process.printable import printable
from mmjax.process.progress import Progress
from mmjax.speech.fallback import Decoder, Thresholds
from mmjax.speech.programs import FORCED, Programs
from mmjax.speech.recording import Recording
from mmjax.speech.windows import Opened, Result, Transcriber
from mmjax.speech.words import Aligner
from mmjax.speech.writers import FORMATS, Transcript, clock

BEST_OF = 5  # samples of a window at a temperature above 0


def open_model(path: str | Path) -> Pretrained:
    """Load a Whisper model; see `mmjax.load`.

    Raises:
      ValueError: no model there, one of another kind, or one without a tokenizer.
    """
    loaded = pretrained.load(path)
    if loaded.config["name"] != "whisper":
        raise ValueError(
            f"'{path}' holds a '{loaded.config['name']}', which does not transcribe: give the "
            "folder of a Whisper."
        )
    loaded.need_tokenizer()
    return loaded


def make_decoder(
    loaded: Pretrained,
    *,
    task: str = "transcribe",
    language: str | None = None,
    timestamps: bool = True,
    batch_size: int = 1,
    beams: int = 1,
    thresholds: Thresholds | None = None,
    int8: bool = False,
    seed: int = 0,
) -> Decoder:
    """A decoder of windows; see `transcribe` for the arguments.

    The tokens that it never chooses are the model's, by default those of openai/whisper.

    A transcript and the text before it each have at most half as many tokens as fit into the
    model, as in the original.

    Raises:
      ValueError: a task or a language that the model does not have, or wrong settings.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: use 1 or more.")
    given, window = loaded.generation, loaded.model.window
    special = special_tokens(loaded.tokenizer, given)
    special.check(task, language)
    never = {special.start, special.previous, special.no_speech, *special.tasks.values()}
    never |= set(given.get("suppress_tokens", not_speech(loaded.tokenizer)) or ())
    blank = (*text_ids(loaded.tokenizer, " "), special.end)
    processors = [NotFirst(tuple(given.get("begin_suppress_tokens") or blank))]
    if timestamps:
        latest = given.get("max_initial_timestamp_index", 50)
        ids = (special.first_time, special.end, special.no_timestamps)
        processors.append(TimestampRules(*ids, latest))
    settings = Settings(
        min(window // 2, window - FORCED - 1),
        end_ids=(special.end,),
        pad_id=special.end,
        forbidden_ids=tuple(sorted(never)),
        beams=beams,
        processors=tuple(processors),
        int8=int8,
    )
    return Decoder(
        Programs(loaded.model, loaded.variables, settings, BEST_OF),
        special,
        loaded.tokenizer.decode_raw,
        thresholds or Thresholds(),
        batch_size=batch_size,
        task=task,
        timestamps=timestamps,
        seed=seed,
    )


def transcribe(
    model: str | Path | Pretrained,
    files: Sequence[str | Path],
    *,
    task: str = "transcribe",
    language: str | None = None,
    timestamps: bool = True,
    word_timestamps: bool = False,
    batch_size: int = 1,
    beams: int = 1,
    carry_over: bool = True,
    thresholds: Thresholds | None = None,
    int8: bool = False,
    seed: int = 0,
    advance: Callable[[float], None] = lambda seconds: None,
) -> Iterator[Result]:
    """Each file with its transcript, or why it has none, as they are finished.

    Args:
      model: a published folder, or a loaded model.
      task: "transcribe" or "translate"; language: a code, None: detected.
      timestamps: False: one segment for each window.
      batch_size: windows of 30 seconds that are decoded together, of all files; 1: one after the
        other, each with the text so far as its prompt (`carry_over`).
      beams: of beam search at temperature 0; 1: greedy decoding.
      thresholds: when a window is decoded again at a higher temperature, or is silent.
      advance: called with the seconds of a recording that are done.

    Raises:
      ValueError: no Whisper there; a task or a language that it does not have; wrong settings.
    """
    loaded = model if isinstance(model, Pretrained) else open_model(model)
    decoder = make_decoder(
        loaded,
        task=task,
        language=language,
        timestamps=timestamps,
        batch_size=batch_size,
        beams=beams,
        thresholds=thresholds,
        int8=int8,
        seed=seed,
    )
    heads = loaded.generation.get("alignment_heads")
    transcriber = Transcriber(
        decoder,
        language if decoder.special.languages else "en",
        carries=carry_over,
        aligner=Aligner(decoder, heads) if word_timestamps else None,
        advance=advance,
    )
    transcripts = transcriber.one_by_one if batch_size == 1 else transcriber.in_batches
    return _all(files, transcripts)


def _all(files: Sequence[str | Path], transcripts: Callable) -> Iterator[Result]:
    """The results of all files: those that cannot be opened among the others."""
    wrong: list[Result] = []

    def opened() -> Iterator[Opened]:
        for path in files:
            try:
                recording = Recording(path)
            except ValueError as error:
                wrong.append((str(path), error))
                continue
            yield str(path), recording

    for result in transcripts(opened()):
        yield from wrong
        wrong.clear()
        yield result
    yield from wrong


def outputs(files: Sequence[str], formats: Sequence[str], folder: str) -> dict[str, list[Path]]:
    """For each file the paths to write, one for each format.

    The folder is created, so that it cannot fail when the first transcript is there.

    Raises:
      ValueError: an unknown format, two files of one name, or a folder that cannot be written to.
    """
    if not formats:
        return {}
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"The format is '{name}'; use some of {', '.join(FORMATS)}.")
    stems: dict[str, str] = {}
    for path in files:
        other = stems.setdefault(Path(path).stem, path)
        if other != path:
            raise ValueError(
                f"'{path}' and '{other}' have one name for their transcripts: rename one, or "
                "transcribe them into different folders by --output."
            )
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        why = None if os.access(folder, os.W_OK) else "it may not be written to"
    except OSError as error:
        why = error.strerror
    if why:
        raise ValueError(
            f"The folder '{folder}' cannot hold the transcripts ({why}): give another --output."
        )
    return {p: [Path(folder) / f"{stem}.{f}" for f in formats] for stem, p in stems.items()}


def _print(path: str, transcript: Transcript, title: bool) -> None:
    if title:
        print(printable(f"{path} ({transcript.language})"))
    for segment in transcript.segments:
        times = f"[{clock(segment.start)} --> {clock(segment.end)}]"
        print(f"{times} {printable(segment.text.strip())}", flush=True)


def main() -> None:
    """The command."""
    files = list(dict.fromkeys(ARGS.files))
    formats = [name.strip() for name in ARGS.format.split(",")] if ARGS.format else []
    paths = outputs(files, formats, ARGS.output)
    names = ("task", "language", "word_timestamps", "batch_size", "beams", "int8", "seed")
    settings = {name: getattr(ARGS, name) for name in names}
    progress = Progress("Transcribing, seconds", round(sum(map(_seconds, files))))
    done, faults = 0.0, []

    def advance(seconds: float) -> None:
        nonlocal done
        done += seconds
        progress.advance(round(done) - progress.done)

    carry = not ARGS.no_carry_over
    results = transcribe(ARGS.model, files, carry_over=carry, advance=advance, **settings)
    with progress:
        for path, found in results:
            if isinstance(found, ValueError):
                faults.append((path, found))
                continue
            if not formats:
                _print(path, found, title=len(files) > 1)
            for name, to in zip(formats, paths.get(path, ())):
                storage.write(to, FORMATS[name](found))
    if len(faults) == len(files) == 1:
        raise ValueError(f"Cannot transcribe '{files[0]}': {faults[0][1]}.")
    for path, fault in faults:
        print(printable(f"  {path}: {fault}"), file=sys.stderr)
    if faults:
        raise ValueError(f"{len(faults)} of {len(files)} files have no transcript: see above.")


def _seconds(path: str) -> float:
    """The length of a recording; 0 where it cannot be opened, which is reported later."""
    try:
        recording = Recording(path)
    except ValueError:
        return 0.0
    recording.close()
    return recording.seconds


if __name__ == "__main__":
    command.run(main)
