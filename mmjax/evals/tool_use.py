"""Answers with the help of tools: whether a model calls them when it should, and what they add."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmjax.data.builders.drawing import png
from mmjax.data.source import Source
from mmjax.data.sources.subset import Subset
from mmjax.data.text.calls import OPEN, Call, read_call, until_call
from mmjax.data.text.image_places import PLACE
from mmjax.data.transforms.parse import parse
from mmjax.decode.tool_calls import WellFormedCalls
from mmjax.evals.captioning import derangement
from mmjax.evals.evaluator import Evaluator, Results
from mmjax.evals.outputs import generate_texts
from mmjax.evals.question_answering import Questions, final_answer
from mmjax.evals.vqa import vqa_metrics
from mmjax.system import Variables
from mmjax.tools.run import Tool, run
from mmjax.tools.table import named


class Continued(Source):
    """A source with the messages of each example replaced."""

    def __init__(self, source: Source, messages: Sequence[Sequence[Mapping[str, str]]]):
        self.name, self._source, self._messages = source.name, source, messages

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self._source[index], "messages": self._messages[index]}

    def meta(self, index: int) -> dict[str, Any]:
        return {**self._source.meta(index), "messages": self._messages[index]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolUse(Evaluator):
    """VQA accuracy of answers for which the model may call tools.

    The source has `messages`, `answers`, and `tool`: the name of the tool that the question is to
    be answered with, "" for none. Metrics:
    - `accuracy`, ...: see `vqa_metrics`.
    - `call/precision`, `call/recall`: of calls of the right tool, in the first turn;
      `call/right_result`: how many of these have a right answer as their result.
      `call/broken`: first turns that begin a call and do not complete one of a known tool.
    - `no_result/accuracy`: every call is answered by an error.
    - `other_result/accuracy`: by the result of another example's call: a model that reads results
      follows them, and is wrong.
    - `well_formed/...`: all of these again, with calls kept well-formed; see `WellFormedCalls`.

    Settings:
      decode: settings of decoding a turn; after: as in a vqa.
      most_calls: in one answer. An answer ends with its last call, or with the one whose result
        leaves no room in the model's window.
      tools: those that may be called, as `--tools` of mmjax.generate: "calculator,detector=PATH".
      well_formed: also evaluate with well-formed calls.
    """

    kind = "tool_use"
    decode: Mapping[str, Any]
    after: str = ""
    most_calls: int = 2
    tools: str = "calculator,crop"
    well_formed: bool = False

    def __post_init__(self):
        if self.most_calls < 1:
            raise ValueError(f"A tool_use has most_calls {self.most_calls}: use at least 1.")
        if not named(self.tools):
            raise ValueError("A tool_use has no tools: name some, such as tools='calculator'.")
        for decode in self._decodes().values():
            self.runner.generate(decode)  # reports wrong settings before training

    def _decodes(self) -> dict[str, Mapping[str, Any]]:
        """The settings of decoding, by the prefix of the metrics."""
        if not self.well_formed:
            return {"": self.decode}
        names = sorted(named(self.tools))
        processors = (WellFormedCalls.of(self.runner.tokenizer, names),)
        return {"": self.decode, "well_formed/": {**self.decode, "processors": processors}}

    def _check_source(self, source: Any) -> None:
        if "messages" not in source.meta(0) or "tool" not in source.meta(0):
            raise ValueError(
                "A tool_use needs examples with messages and tool, the name of the tool to call: "
                "use a source such as digit_instructions."
            )

    def run(self, variables: Variables) -> Results:
        source, tools = self._open(self.source), named(self.tools)
        for prefix, decode in self._decodes().items():
            found = self._metrics(variables, source, tools, decode)
            yield from ((f"{prefix}{name}", value) for name, value in found)

    def _metrics(
        self,
        variables: Variables,
        source: Source,
        tools: Mapping[str, Tool],
        decode: Mapping[str, Any],
    ) -> Results:
        asked = Questions.of(source)
        needed = [source.meta(i)["tool"] for i in range(len(source))]
        begun = [_question(source.meta(i)["messages"]) for i in range(len(source))]

        def turn(messages: Sequence, which: Sequence[int]) -> list[str]:
            return self._turn(variables, source, messages, which, decode)

        @functools.cache  # the same call is answered three times
        def result(call: Call, i: int) -> str:
            return _result(call, tools, source[i])

        def results(calls: Sequence[Call], which: Sequence[int]) -> list[str]:
            return [result(call, i) for call, i in zip(calls, which)]

        def exchanged(calls: Sequence[Call], which: Sequence[int]) -> list[str]:
            found = results(calls, which)
            return [found[i] for i in derangement(len(found))] if len(found) > 1 else found

        first = turn(begun, range(len(source)))
        given = self._answered(turn, source, begun, first, results)
        yield from vqa_metrics(given, asked.human, asked.type).items()
        yield from _call_metrics(first, needed, asked.human, tools, results)
        for name, results_of in (("no_result", _errors), ("other_result", exchanged)):
            given = self._answered(turn, source, begun, first, results_of)
            metrics = vqa_metrics(given, asked.human, asked.type)
            yield f"{name}/accuracy", metrics["accuracy"]

    def _turn(
        self,
        variables: Variables,
        source: Source,
        messages: Sequence,
        which: Sequence[int],
        decode: Mapping[str, Any],
    ) -> list[str]:
        """The model's next turn in some of the conversations, up to its first call."""
        part = Subset(Continued(source, messages), which)
        given = self.runner, variables, part, self._batches(part)
        texts, _ = generate_texts(*given, decode, ("image", "text"))
        # No place of an image in the next prompt.
        return [until_call(text).replace(PLACE, " ").strip() for text in texts]

    def _with_room(self, source: Source, which: Sequence[int]) -> list[int]:
        """Those of the conversations that leave room for another turn."""
        prepare = parse(self.transform, tokenizer=self.runner.tokenizer)
        most = self.runner.window - self.decode["max_new_tokens"]
        found = []
        for i in which:
            try:
                row = prepare(source[i], np.random.default_rng(0))
            except ValueError:  # longer than a row: the shorter prompt before it was none
                continue
            if row["text_mask"].sum() <= most:
                found.append(i)
        return found

    def _answered(
        self,
        turn: Callable[[Sequence, Sequence[int]], list[str]],
        source: Source,
        begun: Sequence[list[dict[str, str]]],
        first: Sequence[str],
        results_of: Callable[[Sequence[Call], Sequence[int]], Sequence[str]],
    ) -> list[str]:
        """The final answers, from the first turns on."""
        messages, last = [list(one) for one in begun], list(first)
        going = range(len(last))
        for _ in range(self.most_calls):
            going = [i for i in going if read_call(last[i])]
            results = results_of([read_call(last[i]) for i in going], going)
            for i, result in zip(going, results):
                messages[i] += [_said("assistant", last[i]), _said("tool", result)]
            going = self._with_room(Continued(source, messages), going)
            if not going:
                break
            for i, text in zip(going, turn(messages, going)):
                last[i] = text
        return [final_answer(text, self.after) for text in last]


def _question(messages: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The messages before the first answer."""
    roles = [message["role"] for message in messages]
    return list(messages[: roles.index("assistant") if "assistant" in roles else len(roles)])


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content or "..."}


def _result(call: Call, tools: Mapping[str, Tool], example: Mapping[str, Any]) -> str:
    """The result of a call about an example's images."""
    images = example.get("image", ())
    images = images if isinstance(images, tuple) else (images,)
    result = run(call, tools, [_file(image) for image in images])
    return result if isinstance(result, str) else "error: only texts can be returned."


def _file(image: bytes | np.ndarray) -> bytes:
    """The bytes of an image's file."""
    return image if isinstance(image, bytes) else png(Image.fromarray(image))


def _errors(calls: Sequence[Call], which: Sequence[int]) -> list[str]:
    return [f"error: {call.name} is not available." for call in calls]


def _call_metrics(
    first: Sequence[str],
    needed: Sequence[str],
    human: Sequence[Sequence[str]],
    tools: Mapping[str, Tool],
    results: Callable[[Sequence[Call], Sequence[int]], Sequence[str]],
) -> Results:
    """Precision and recall of calls of the needed tool; 0 where there are no calls, or no need."""
    calls = [read_call(text) for text in first]
    right = [i for i, call in enumerate(calls) if call and call.name == needed[i]]
    total, wanted = sum(call is not None for call in calls), sum(map(bool, needed))
    yield "call/precision", len(right) / total if total else 0.0
    yield "call/recall", len(right) / wanted if wanted else 0.0
    hits = [r in human[i] for i, r in zip(right, results([calls[i] for i in right], right))]
    yield "call/right_result", float(np.mean(hits)) if hits else 0.0
    known = [call is not None and call.name in tools for call in calls]
    broken = [OPEN in text and not good for text, good in zip(first, known)]
    yield "call/broken", float(np.mean(broken))
