r"""The runs of grid.py again, with treatments of the gap after training; it starts none.

    python -m experiments.ablate --grid=experiments/strategies/alignment/treatments.py \
        --out=runs/alignment --report=experiments/strategies/alignment/treatments --table
"""

from experiments.strategies.alignment import grid


def get_grid():
    """The grid of this study."""
    names = ("none", "shift", "center", "standardize", "project")
    columns = {f"unseen_test/{name}/gap": f"gap, {name}" for name in names}
    columns |= {f"unseen_test/{name}/separability": f"separability, {name}" for name in names}
    columns |= {f"unseen_test/{name}/recall@5": f"recall@5, {name}" for name in names}
    return grid.get_grid() | {"metrics": columns}
