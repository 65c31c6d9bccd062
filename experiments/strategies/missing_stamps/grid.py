r"""Missing modalities at test time, on stamps with image, sound and caption: all patterns.

    python -m experiments.ablate --grid=experiments/strategies/missing_stamps/grid.py \
        --out=runs/missing_stamps --report=experiments/strategies/missing_stamps
"""

from configs.fusion_stamps import get_config
from experiments.strategies.missing_digits import grid


def get_grid():
    """The grid of this study."""
    return {
        **grid.get_grid(),
        "config": "configs/fusion_stamps.py",
        "metrics": {f"{name}/top1": name.replace("_", ", ") for name in get_config().evals},
    }
