"""Visual question answering, and baselines that do not use the image."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.source import Source
from mmjax.evals.captioning import derangement
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.metrics.yes_no import yes_no_metrics
from mmjax.evals.outputs import generate_texts, score_texts
from mmjax.evals.vqa import PRIORS, answer_prior, most_frequent, normalize_answer, vqa_metrics
from mmjax.system import Variables

_READ = ("image", "text")


@dataclasses.dataclass(frozen=True)
class Questions:
    """The questions of a source: text, type, human answers and steps of each example.

    `steps` is the number of steps to the answer where the source knows it, else 0.
    """

    text: list[str]
    type: list[str]
    human: list[list[str]]
    steps: list[int]

    @classmethod
    def of(cls, source: Any) -> "Questions":
        """All questions of a source: `captions` (one: the question), `answers`, `question_type`.

        Raises:
          ValueError: an example that has no answers.
        """
        text, kinds, human, steps = [], [], [], []
        for i in range(len(source)):
            example = source.meta(i)
            if not example.get("answers") or not example.get("captions"):
                raise ValueError(
                    f"Example {example.get('key', i)} has no question and answers: VQA needs "
                    "'captions' with the question and 'answers' with the human answers."
                )
            text.append(str(example["captions"][0]))
            kinds.append(str(example.get("question_type", "all")))
            human.append([str(answer) for answer in example["answers"]])
            steps.append(int(example.get("steps", 0)))
        return cls(text, kinds, human, steps)

    def at(self, places: np.ndarray) -> "Questions":
        """The questions at the given indices."""
        columns = (self.text, self.type, self.human, self.steps)
        return Questions(*([column[i] for i in places] for column in columns))

    def asked(self) -> list[tuple[str, str]]:
        """(type, question) of each."""
        return list(zip(self.type, self.text))


class OtherImages(Source):
    """A source with the images permuted among the examples, by a fixed seed."""

    def __init__(self, source: Any):
        self.name = f"{getattr(source, 'name', 'a source')} with other images"
        self.class_names = getattr(source, "class_names", None)
        self._source, self._other = source, derangement(len(source))

    def __len__(self) -> int:
        return len(self._source)

    def meta(self, i: int) -> dict[str, Any]:
        return self._source.meta(i)

    def __getitem__(self, i: int) -> dict[str, Any]:
        example, other = self._source[i], self._source[int(self._other[i])]
        kept = {k: v for k, v in example.items() if k not in ("image", "image_present")}
        return kept | {k: other[k] for k in ("image", "image_present") if k in other}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vqa(Evaluator):
    """VQA accuracy by the official rule; see `vqa.py`.

    Answers are the class names with the largest logits; or, if `decode` is given, the text that the
    model generates after the question; or those of `choices` that are most probable after it.
    Further metrics:
    - `of_type/...` (models with logits): the largest logit among the training answers to questions
      of the same type, for models that did not learn which answers fit a question.
    - `without_image/...` and `other_image/...`: the same model and questions, without an image and
      with the image of another question.
    - `prior_all/...`, `prior_type/...`, `prior_question/...`: the most frequent training answer to
      all questions, to those of the same type, and to those with the same words.
    - `question_only/...`: logistic regression on the question's words; see `question_only.py`.
    - `steps_n/accuracy`: of the questions that take n steps, where the source says how many.
    - `majority_k/accuracy`: the most frequent of k sampled answers, for each k of `samples`
      (self-consistency: Wang et al. 2022, arXiv 2203.11171).

    Settings:
      train_source: training data of the priors and of the question-only model.
      decode: settings of decoding.
      after: the answer is what follows the last of these words in a generated text ("": all of it).
      samples: numbers of sampled texts; temperature: that they are sampled with.
      choices: answers to choose from, by their log-probability, end token included.
      yes_no: also `yes_no/...` of the questions whose answer is yes or no; see `yes_no_metrics`.
    """

    kind = "vqa"
    train_source: Mapping[str, Any]
    decode: Mapping[str, Any] | None = None
    after: str = ""
    samples: tuple[int, ...] = ()
    temperature: float = 0.7
    choices: tuple[str, ...] = ()
    yes_no: bool = False

    def __post_init__(self):
        if self.decode is None and (self.after or self.samples):
            raise ValueError("A vqa has after or samples, of generated texts: add its decode.")
        if any(k < 1 for k in self.samples) or (self.samples and self.temperature <= 0):
            raise ValueError(
                f"A vqa has samples {self.samples} at temperature {self.temperature}: use numbers "
                "of at least 1, and a temperature above 0."
            )
        if self.decode is not None and self.choices:
            raise ValueError("A vqa has decode and choices: remove one of them.")
        if self.decode is not None:
            self.runner.generate(self.decode)  # reports wrong settings before training
        if self.choices:
            self.runner.score(self.choices)

    @property
    def classifies(self) -> bool:
        """Whether the answers are the model's classes."""
        return self.decode is None and not self.choices

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {"logits": _READ} if self.classifies else {}

    def answers(
        self, variables: Variables, source: Any, *absent: str
    ) -> tuple[list[str], np.ndarray]:
        """The model's answers, and the indices of their examples."""
        if self.decode is not None:
            return self._generated(variables, source, self.decode, absent)
        given = self.runner, variables, source, self._batches(source)
        if self.choices:
            found = score_texts(*given, self.choices, _READ, absent)
            places = np.flatnonzero(found["present"])
            return [self.choices[i] for i in found["scores"][places].argmax(axis=1)], places
        logits, names, places = self._logits(variables, source, *absent)
        return [names[i] for i in logits.argmax(axis=1)], places

    def _generated(
        self,
        variables: Variables,
        source: Any,
        decode: Mapping[str, Any],
        absent: Sequence[str] = (),
        seed: int = 0,
    ) -> tuple[list[str], np.ndarray]:
        """The answers in generated texts, and the indices of their examples."""
        given = self.runner, variables, source, self._batches(source)
        texts, present = generate_texts(*given, decode, _READ, absent, seed)
        places = np.flatnonzero(present)
        return [final_answer(texts[i], self.after) for i in places], places

    def _majorities(self, variables: Variables, source: Any, asked: Questions) -> Results:
        """The accuracy of the most frequent of k sampled answers."""
        decode = {**self.decode, "temperature": self.temperature}
        found = [
            self._generated(variables, source, decode, seed=seed)
            for seed in range(max(self.samples))
        ]
        for k in self.samples:
            texts = [[normalize_answer(text) for text in row] for row, _ in found[:k]]
            given = [most_frequent(row) for row in zip(*texts)]
            metrics = vqa_metrics(given, asked.human, asked.type)
            yield f"majority_{k}/accuracy", metrics["accuracy"]

    def _logits(
        self, variables: Variables, source: Any, *absent: str
    ) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Logits [N, C], the C answers, and the indices of the examples."""
        outputs = self._embed(
            variables, source, ["logits"], modalities=_READ, absent=absent, every=True
        )
        names = list(self.runner.class_names or getattr(source, "class_names", None) or [])
        if outputs["logits"].shape[1] > len(names):
            raise ValueError(
                f"The model has {outputs['logits'].shape[1]} answers and the source names "
                f"{len(names)}: set the size of the model's head to that."
            )
        return outputs["logits"], names, outputs["example_id"]

    def _of_type(
        self, logits: np.ndarray, names: list[str], train: Questions, types: list[str]
    ) -> list[str]:
        """The answer with the largest logit among the training answers to the question's type."""
        names = names[: logits.shape[1]]
        answers: dict[str, set[str]] = {}
        for kind, human in zip(train.type, train.human):
            answers.setdefault(kind, set()).update(map(normalize_answer, human))
        known = [normalize_answer(name) for name in names]
        fits = {
            kind: np.array([name in given for name in known]) for kind, given in answers.items()
        }
        every = np.ones(len(names), bool)
        fits = np.stack([fits.get(kind, every) for kind in types])
        return [names[i] for i in np.where(fits, logits, -np.inf).argmax(axis=1)]

    def run(self, variables: Variables) -> Results:
        # Imported late: scipy's optimizers take most of a second.
        from mmjax.evals.question_only import question_only

        source, train_source = self._open(self.source), self._open(self.train_source)
        asked, train = Questions.of(source), Questions.of(train_source)
        compared = {}
        if self.classifies:
            logits, names, places = self._logits(variables, source)
            here = asked.at(places)
            given = [names[i] for i in logits.argmax(axis=1)]
            compared["of_type"] = (self._of_type(logits, names, train, here.type), places)
        else:
            given, places = self.answers(variables, source)
            here = asked.at(places)
        yield from vqa_metrics(given, here.human, here.type).items()
        if self.yes_no:
            yield from _yes_no(given, here.human)
        for steps in sorted(set(here.steps) - {0}):
            own = here.at(np.flatnonzero(np.asarray(here.steps) == steps))
            answers = [text for text, n in zip(given, here.steps) if n == steps]
            yield f"steps_{steps}/accuracy", vqa_metrics(answers, own.human, own.type)["accuracy"]
        if self.samples:
            yield from self._majorities(variables, source, here)
        compared["other_image"] = self.answers(variables, OtherImages(source))
        compared["without_image"] = self.answers(variables, source, "image")
        learned = [_usual(texts) for texts in train.human]
        for by in PRIORS:
            guess = answer_prior(by, train.asked(), learned, here.asked())
            compared[f"prior_{by}"] = (guess, places)
        compared["question_only"] = (question_only(train.text, learned, here.text), places)
        for name, (answers, where) in compared.items():
            there = asked.at(where)
            metrics = vqa_metrics(answers, there.human, there.type)
            yield from ((f"{name}/{metric}", value) for metric, value in metrics.items())
        yield from left_out(len(source) - len(places))


def _yes_no(given: Sequence[str], human: Sequence[Sequence[str]]) -> Results:
    """The metrics of the questions whose answer is yes or no, if there are any."""
    places = [i for i, answers in enumerate(human) if set(answers) <= {"yes", "no"}]
    if places:
        found = yes_no_metrics([given[i] for i in places], [human[i][0] for i in places])
        yield from ((f"yes_no/{metric}", value) for metric, value in found.items())


def final_answer(text: str, after: str) -> str:
    """What follows the last occurrence of `after` in a text; without one, or of "", all of it."""
    return (text.rpartition(after)[2] if after else text).strip()


def _usual(answers: list[str]) -> str:
    return most_frequent([normalize_answer(answer) for answer in answers])
