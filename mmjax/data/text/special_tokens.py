"""The special tokens of Whisper, by the names in its tokenizer."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from mmjax.config import nearest
from mmjax.data.text.tokenizer import Tokenizer

TASKS = ("transcribe", "translate")
TIME_STEP = 0.02  # seconds from one timestamp to the next
# Written for sounds and speakers, and not spoken, such as "[Music]"; and notes, of which the first
# byte tells.
_MARKS = (*'"#()*+/:;<=>@[\\]^_`{|}~「」『』', "<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[")
_MARKS += ("('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}", "♪♪", "♪♪♪")
_NOTES = tuple("♩♪♫♬♭♮♯")
GPT2_END = 50256  # the end token of English-only models, whose vocabulary is GPT-2's


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens, which differ between models.

    Attributes:
      start: begins a transcript; end: ends it, and every text token is below it.
      previous: begins the text before the recording; no_speech: predicted at `start` for noise.
      first_time: `<|0.00|>`; the tokens above it are later timestamps.
      languages: code -> id, empty for an English-only model; tasks: name -> id, likewise.
    """

    start: int
    end: int
    previous: int
    no_speech: int
    no_timestamps: int
    languages: Mapping[str, int]
    tasks: Mapping[str, int]

    @property
    def first_time(self) -> int:
        """The id of `<|0.00|>`, which some tokenizers leave out."""
        return self.no_timestamps + 1

    def forced(self, language: str, task: str, timestamps: bool) -> tuple[int, ...]:
        """The tokens that follow `start`: language and task, and no timestamps."""
        ids = (self.languages[language], self.tasks[task]) if self.languages else ()
        return ids if timestamps else (*ids, self.no_timestamps)

    def check(self, task: str, language: str | None) -> None:
        """Raise ValueError for a task or a language that the model does not have."""
        if task not in TASKS:
            raise ValueError(f"The task is '{task}'; use one of {', '.join(TASKS)}.")
        if not self.languages:
            if task == "translate":
                raise ValueError(
                    "The model knows English only and cannot translate: use one for many "
                    "languages, whose name has no '.en'."
                )
            if language not in (None, "en"):
                raise ValueError(
                    f"The language is '{language}' and the model knows English only: use one for "
                    "many languages, whose name has no '.en'."
                )
        elif language is not None and language not in self.languages:
            raise ValueError(
                f"The model has no language '{language}'.{nearest(language, self.languages)} It "
                f"has {', '.join(sorted(self.languages))}."
            )


def special_tokens(tokenizer: Tokenizer, generation: Mapping[str, Any]) -> SpecialTokens:
    """The special tokens of a Whisper's tokenizer.

    Args:
      generation: the content of generation_config.json, which says whether the model is
        multilingual; without it, it is where the end token is not that of GPT-2.

    Raises:
      ValueError: a tokenizer that lacks them.
    """
    ids = {token["content"]: token["id"] for token in json.loads(tokenizer.json())["added_tokens"]}

    def get(*names: str) -> int:
        for name in names:
            if f"<|{name}|>" in ids:
                return ids[f"<|{name}|>"]
        raise ValueError(
            f"The tokenizer has no token <|{names[0]}|>: it is not that of a Whisper model; copy "
            "the folder's tokenizer.json again."
        )

    end = get("endoftext")
    languages, tasks = {}, {}
    if generation.get("is_multilingual", end != GPT2_END):
        languages = {
            m[1]: n for name, n in ids.items() if (m := re.match(r"<\|(\w{2,3})\|>$", name))
        }
        tasks = {name: get(name) for name in TASKS}
    return SpecialTokens(
        start=get("startoftranscript"),
        end=end,
        previous=get("startofprev"),
        no_speech=get("nospeech", "nocaptions"),
        no_timestamps=get("notimestamps"),
        languages=languages,
        tasks=tasks,
    )


def text_ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """The tokens of a text, without a begin token."""
    return tokenizer.prompts([text])[0][tokenizer.bos_id is not None :]


def not_speech(tokenizer: Tokenizer) -> set[int]:
    """Tokens that no transcript has, for a folder whose generation_config.json does not say.

    Source: openai/whisper, tokenizer.py, non_speech_tokens; decoding.py, _get_suppress_tokens.
    """
    found = {tokenizer.token_id(f"<|{name}|>") for name in (*TASKS, "startoflm")} - {None}
    found |= {text_ids(tokenizer, text)[0] for text in (" -", " '")}
    for mark in (*_MARKS, *_NOTES):
        for ids in (text_ids(tokenizer, mark), text_ids(tokenizer, f" {mark}")):
            if len(ids) == 1 or mark in _NOTES:
                found.add(ids[0])
    return found


def is_of_whisper(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer has Whisper's special tokens."""
    return tokenizer.token_id("<|notimestamps|>") is not None


def prompt(tokenizer: Tokenizer, language: str = "en", task: str = "transcribe") -> tuple[int, ...]:
    """The tokens before a transcript without timestamps; of a tokenizer without Whisper's special
    tokens its begin token.

    Raises:
      ValueError: a task or a language that the tokenizer does not have, or no begin token.
    """
    if is_of_whisper(tokenizer):
        special = special_tokens(tokenizer, {})
        special.check(task, language)
        return (special.start, *special.forced(language, task, timestamps=False))
    if tokenizer.bos_id is None:
        raise ValueError("The tokenizer has no begin token to start a transcript with.")
    if (language, task) != ("en", "transcribe"):
        raise ValueError(
            f"The tokenizer has no tokens of languages and tasks, for '{language}' and '{task}': "
            "use that of a Whisper."
        )
    return (tokenizer.bos_id,)
