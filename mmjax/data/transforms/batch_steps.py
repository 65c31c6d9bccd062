"""Steps that work on a whole batch; see `parse.py`. (`interleave` has a file of its own.)"""

import numpy as np


def mixup(alpha, num_classes):
    """Mixup: every image or waveform is mixed with its partner's, and their labels likewise.

    Takes `image [B, H, W, 3] uint8` or `waveform [B, T] float32` and `label [B]` or `label_probs
    [B, C]`; gives the same (images rounded) and `label_probs [B, C] float32`. One mixing weight per
    batch, from Beta(alpha, alpha).
    Partners are rows 2i and 2i + 1 (random, since the epoch is shuffled), so they do not depend on
    the number of processes. Raises ValueError if a process has an odd number of rows. Source: Zhang
    et al. 2017 (mixup).
    """
    if alpha <= 0:
        raise ValueError(f"alpha must be above 0, not {alpha}")

    def f(batch, rng):
        keys = [key for key in ("image", "waveform") if key in batch]
        if not keys:
            raise ValueError(
                f"mixup mixes 'image' or 'waveform', and the batch has {sorted(batch)}: end the "
                "transforms of each example with one of them"
            )
        rows = len(batch[keys[0]])
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
        mixed = {}
        for key in keys:
            x = batch[key].astype(np.float32)
            mixed[key] = weight * x + (1 - weight) * x[other]
        if "image" in mixed:
            mixed["image"] = np.rint(mixed["image"]).astype(np.uint8)
        probs = weight * probs + (1 - weight) * probs[other]
        return {**batch, **mixed, "label_probs": probs}

    return f
