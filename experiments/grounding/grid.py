"""Boxes as tokens of location bins or as decimal numbers; three seeds."""

from configs.llava_boards import chain, evaluations


def get_grid():
    """The grid."""
    decimals = {
        **{f"data.train.parts.{part}.transform": chain("decimals") for part in ("boards", "maps")},
        "evals": evaluations("decimals"),
    }
    return {
        "config": "configs/llava_boards.py",
        "arms": {"bins": {}, "decimals": decimals},
        "baseline": "bins",
        "seeds": [0, 1, 2],
        "metrics": {
            f"{split}/{prefix}{metric}": f"{title}, {what}"
            for split, title in (
                ("seen", "seen"),
                ("phrasings", "phrasings"),
                ("new_names", "new names"),
                ("new_drawings", "new drawings"),
                ("new_board", "new board"),
                ("maps", "maps"),
                ("new_maps", "new maps"),
            )
            for prefix, metric, what in (
                ("", "where/accuracy", "IoU 0.5"),
                ("other_image/", "where/accuracy", "other image"),
                ("prior/", "where/accuracy", "prior"),
                ("", "point/accuracy", "point"),
                ("prior/", "point/accuracy", "prior point"),
                ("", "what/accuracy", "name"),
            )
        },
    }
