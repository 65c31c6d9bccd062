r"""Logistic regression on the mean and deviation of MFCCs: the baseline of kwt_fsdd and ast_esc10.

    python experiments/audio/mfcc_probe.py fsdd FSDD.tar.gz
    python experiments/audio/mfcc_probe.py esc10 ESC-10.tar

Every split is held out once: a speaker of FSDD, a fold of ESC-10. Prints the accuracy on each, and
the mean. A clip's features are the mean and the standard deviation over its frames of 20 MFCCs, and
of their differences from frame to frame.
"""

import argparse
import statistics

import numpy as np

from mmjax.data.builders import esc10, fsdd
from mmjax.data.transforms.audio_ops import decode_audio
from mmjax.data.transforms.spectrogram import Frames, mfcc
from mmjax.evals.linear_probe import linear_probe


def splits_of(name, root):
    """{split: [(label, encoded bytes), ...]}."""
    if name == "fsdd":
        return {k: [(x[0], x[2]) for x in v] for k, v in fsdd.read_recordings(root).items()}
    return {k: [x[1:] for x in v] for k, v in esc10.read_sounds(root).items()}


def features(data):
    """[80] of an encoded file."""
    x, rate = decode_audio(data)
    frames = Frames(round(0.03 * rate), round(0.01 * rate), edges="constant")
    found = mfcc(x, rate, 20, mels=40, frames=frames)
    parts = (found, np.diff(found, axis=0, prepend=found[:1]))
    return np.concatenate([s for part in parts for s in (part.mean(0), part.std(0))])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["fsdd", "esc10"])
    parser.add_argument("root")
    args = parser.parse_args()
    made = {
        split: (np.stack([features(data) for _, data in clips]), np.array([x for x, _ in clips]))
        for split, clips in splits_of(args.name, args.root).items()
    }
    accuracies = []
    for split, (x, labels) in made.items():
        others = [made[other] for other in made if other != split]
        train, known = (np.concatenate(parts) for parts in zip(*others))
        scores, _ = linear_probe(train, known, x, 10)
        accuracies.append(float((scores.argmax(1) == labels).mean()))
        print(f"{split:10s} {accuracies[-1]:.3f}", flush=True)
    print(f"{'mean':10s} {statistics.mean(accuracies):.3f}")


if __name__ == "__main__":
    main()
