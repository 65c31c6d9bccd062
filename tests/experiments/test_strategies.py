"""The grids of experiments/strategies: every arm is a config that trains on the same budget."""

from pathlib import Path

import pytest

from experiments import ablate
from mmjax.data.mixture_weights import POWERS
from mmjax.data.order import check_weights

GRIDS = sorted((Path(__file__).parents[2] / "experiments" / "strategies").glob("*/*.py"))


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_grid_has_arms_of_one_budget_and_metrics_of_its_evaluators(path, tmp_path):
    grid = ablate.load_grid(str(path))
    assert len(grid["seeds"]) >= 3
    runs = ablate.make_runs({**grid, "seeds": [0]}, tmp_path)
    assert len({(run.config.batch_size, run.config.total_steps) for run in runs}) == 1
    for run in runs:
        assert {name.split("/")[0] for name in grid["metrics"]} <= set(run.config.evals)
        if run.config.data.train.kind == "mixture":
            parts = run.config.data.train.parts
            weights = {name: part.weight for name, part in parts.items()}
            assert set(weights.values()) <= POWERS.keys() or check_weights(weights, weights) is None
