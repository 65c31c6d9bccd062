r"""Sort-of-CLEVR with a relation network, and with the same convolutions and an MLP.

    python -m experiments.ablate --grid=experiments/sort_of_clevr/grid.py --out=runs/sort_of_clevr \
        --report=experiments/sort_of_clevr

Fewer steps than the published 20 epochs (61,250), at a higher learning rate.
"""


def get_grid():
    """The grid of this study."""
    return {
        "config": "configs/sort_of_clevr.py",
        "fixed": {
            "total_steps": 4000,
            "eval_every": 1000,
            "checkpoint.every": 1000,
            "optim.learning_rate": 5e-4,
        },
        "arms": {
            "CNN + MLP": {"model.relation": "none"},
            "relation network": {"model.relation": "pairs"},
        },
        "baseline": "CNN + MLP",
        "seeds": [0, 1, 2],
        "metrics": {
            "non_relational/top1": "non-relational questions",
            "relational/top1": "relational questions",
        },
    }
