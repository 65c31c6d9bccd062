"""Baselines from a question's words alone on the emoji questions, trained with and without bias.

    python -m experiments.emoji_questions.baselines

Prints a row for each baseline: fitted on the balanced and on the biased training split, scored on
the held-out concepts of the test split.
"""

from mmjax.data.open_source import open_source
from mmjax.evals.question_answering import Questions
from mmjax.evals.question_only import question_only
from mmjax.evals.vqa import PRIORS, answer_prior, vqa_metrics


def questions(split, **settings):
    """The questions of a split."""
    return Questions.of(open_source({"kind": "emoji_questions", "split": split, **settings}))


def main():
    """Print the table."""
    test = questions("test")
    types = sorted(set(test.type))
    print("| trained on | answers by | accuracy | balanced |", " | ".join(types), "|")
    print("|---" * (4 + len(types)) + "|")
    for bias in (0.0, 0.9):
        train = questions("train", bias=bias)
        learned = [answers[0] for answers in train.human]
        guesses = {by: answer_prior(by, train.asked(), learned, test.asked()) for by in PRIORS}
        guesses["words"] = question_only(train.text, learned, test.text)
        for by, answers in guesses.items():
            found = vqa_metrics(answers, test.human, test.type)
            shown = [found[k] for k in ("accuracy", "balanced", *(f"type_{t}" for t in types))]
            values = " | ".join(f"{value:.3f}" for value in shown)
            print(f"| bias {bias} | {by} | {values} |", flush=True)


if __name__ == "__main__":
    main()
