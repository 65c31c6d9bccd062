r"""The effect of a language bias in training, and two remedies.

    python -m experiments.ablate --grid=experiments/emoji_questions/grid.py --out=runs/vqa \
        --report=experiments/emoji_questions

All are tested on the same questions, whose wordings do not depend on the answers. Learned-mixin has
no entropy penalty: of 0 and the paper's 0.36 the first was better on the validation split.
"""

from configs.vqa_emoji import questions

BIAS = 0.9
# The priors and the question-only model are those of what is trained on.
PRIORS = {f"evals.{split}.train_source.bias": BIAS for split in ("validation", "test")}


def get_grid():
    """The grid of this study."""
    return {
        "config": "configs/vqa_emoji.py",
        "arms": {
            "wordings without bias": {"data.train.bias": 0.0},
            "biased": {"data.train.bias": BIAS},
            "biased, learned-mixin": {
                "data.train.bias": BIAS,
                "loss.debias": "learned_mixin",
            },
            "biased, answers balanced": {
                "data.train": {"kind": "balanced", "source": questions("train", bias=BIAS)},
                **PRIORS,
            },
        },
        "baseline": "biased",
        "seeds": [0, 1, 2],
        "metrics": {
            "test/accuracy": "accuracy",
            "test/of_type/accuracy": "among the type's answers",
            "test/balanced": "balanced",
            "test/other_image/accuracy": "another image",
            "test/question_only/accuracy": "question only",
        },
    }
