"""Answers alone, with the steps to them, and with a calculator; three seeds."""


def get_grid():
    """The grid."""
    targets = "data.train.targets"
    return {
        "config": "configs/llava_digits.py",
        "arms": {
            "the answer alone": {targets: "answer"},
            "steps, then the answer": {targets: "steps"},
            "a calculator for sums": {targets: "tool"},
        },
        "baseline": "the answer alone",
        "seeds": [0, 1, 2],
        "metrics": {
            "digits/accuracy": "accuracy",
            "phrasings/accuracy": "phrasings",
            "digits/type_sum": "sums",
            "digits/steps_4/accuracy": "4 digits",
            "digits/majority_15/accuracy": "majority of 15",
            "digits/without_image/accuracy": "no image",
            "tools/accuracy": "with tools",
            "tools/well_formed/accuracy": "well-formed calls",
            "tools/other_result/accuracy": "results exchanged",
        },
    }
