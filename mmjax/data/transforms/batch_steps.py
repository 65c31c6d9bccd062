"""Steps that work on a whole batch; see `parse.py`. (`interleave` has a file of its own.)"""

import numpy as np


def mixup(alpha, num_classes):
    """Mixup: every image is mixed with its partner's, and their labels in the same proportion.

    Takes `image [B, H, W, 3] uint8` and `label [B]` or `label_probs [B, C]`; gives `image` (uint8,
    rounded) and `label_probs [B, C] float32`. One mixing weight per batch, from Beta(alpha, alpha).
    Partners are rows 2i and 2i + 1 (random, since the epoch is shuffled), so they do not depend on
    the number of processes. Raises ValueError if a process has an odd number of rows. Source: Zhang
    et al. 2017 (mixup).
    """
    if alpha <= 0:
        raise ValueError(f"alpha must be above 0, not {alpha}")

    def f(batch, rng):
        rows = len(batch["image"])
        if rows % 2:
            raise ValueError(
                f"mixup mixes pairs and a process has {rows} rows of the batch: set "
                "config.batch_size to an even multiple of the number of processes"
            )
        weight = np.float32(rng.beta(alpha, alpha))
        other = np.arange(rows) ^ 1
        probs = batch.get("label_probs")
        if probs is None:
            label = batch["label"]
            if len(label) and not 0 <= label.min() <= label.max() < num_classes:
                raise ValueError(
                    f"mixup has num_classes={num_classes}, but the batch holds labels from "
                    f"{label.min()} to {label.max()}"
                )
            probs = np.eye(num_classes, dtype=np.float32)[label]
        image = batch["image"].astype(np.float32)
        mixed = weight * image + (1 - weight) * image[other]
        return {
            **batch,
            "image": np.rint(mixed).astype(np.uint8),
            "label_probs": weight * probs + (1 - weight) * probs[other],
        }

    return f
