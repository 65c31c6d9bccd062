r"""What is left of what: CLIP on scenes of two stamps, with and without hard negatives.

    python -m experiments.ablate --grid=experiments/compositionality/relations.py \
        --out=runs/relations --report=experiments/compositionality/relations

A caption names the categories of the stamps of Tux Paint, "food to the left of animals".
"""


def scenes(count, seed):
    """Scenes of two stamps, each also mirrored."""
    stamps = {"kind": "tfds", "name": "tuxpaint", "split": "train"}
    two = {"kind": "scenes", "objects": stamps, "count": count, "size": 48, "seed": seed}
    two |= {"per_scene": (2, 2), "scale": (0.3, 0.45)}
    return {"kind": "scene_relations", "source": two, "seed": seed}


def get_grid():
    """The grid of this study."""
    read = "first_caption | tokenize(16)"
    return {
        "config": "configs/clip_emoji.py",
        "fixed": {
            "total_steps": 600,
            "data.train": scenes(5000, 0),
            "model.image.patch_dropout": 0.0,
            "evals": {
                "relations": {
                    "kind": "caption_swaps",
                    "source": scenes(300, 1),
                    "transform": "decode | resize(48)",
                }
            },
            "validation": (),
            "baselines": "",
        },
        "arms": {
            "contrast": {"data.transform": read},
            "with hard negatives": {
                "data.transform": f"{read} | hard_negative(16)",
                "loss.hard_negatives": True,
            },
        },
        "baseline": "contrast",
        "seeds": [0, 1, 2],
        "metrics": {
            "relations/accuracy": "own caption",
            "relations/text_score": "text score",
            "relations/image_score": "image score",
            "relations/group_score": "group score",
        },
    }
