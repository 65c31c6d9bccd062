"""Make tests/golden/kmeans.safetensors: Lloyd's iterations of scikit-learn from given centers.

pip install scikit-learn==1.9.1
python tests/golden/make_kmeans.py
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.cluster import KMeans


def main() -> None:
    rng, kept = np.random.default_rng(0), {}
    for case, (count, width, k) in enumerate(((60, 2, 4), (150, 5, 9), (40, 3, 12))):
        means = rng.normal(size=(k, width)) * 3
        x = (means[rng.integers(k, size=count)] + rng.normal(size=(count, width))).astype(
            np.float32
        )
        start = x[rng.choice(count, k, replace=False)]
        done = KMeans(k, init=start, n_init=1, max_iter=100, tol=0, algorithm="lloyd").fit(x)
        kept |= {f"{case}.x": x, f"{case}.start": start}
        kept |= {f"{case}.centers": done.cluster_centers_, f"{case}.labels": done.labels_}
    save_file(kept, Path(__file__).parent / "kmeans.safetensors")


if __name__ == "__main__":
    main()
