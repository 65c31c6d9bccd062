"""Make tests/golden/image_metrics.safetensors: published metrics of random features and images.

    pip install torch==2.13.0 torchvision torch-fidelity==0.4.0 pytorch-fid==0.3.0 \
        scikit-image==0.26.0 scipy==1.17.1
    python tests/golden/make_image_metrics.py

Of features [N, D], generated and real, with fewer rows than numbers in the second case: FID of
pytorch-fid, KID and precision and recall of torch-fidelity. Of images: PSNR and SSIM of
scikit-image.
"""

from pathlib import Path

import numpy as np
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from safetensors.numpy import save_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

SIZES = ((60, 45, 7), (20, 31, 40))  # generated, real, width


def main() -> None:
    rng, kept = np.random.default_rng(0), {}
    for case, (count, others, width) in enumerate(SIZES):
        spread = rng.normal(size=(width, width)) / np.sqrt(width)
        made = (rng.normal(size=(count, width)) @ spread + 0.2).astype(np.float32)
        real = (rng.normal(size=(others, width)) * 1.1).astype(np.float32)
        pair = [torch.from_numpy(x.astype(np.float64)) for x in (made, real)]
        kid = kid_features_to_metric(
            *pair, kid_subsets=6, kid_subset_size=13, rng_seed=2020, verbose=False
        )
        whole = kid_features_to_metric(
            pair[0][:20], pair[1][:20], kid_subsets=1, kid_subset_size=20, verbose=False
        )
        found = prc_features_to_metric(*pair, prc_neighborhood=3, verbose=False)
        gaussians = [f(x) for x in (made, real) for f in (_mean, _covariance)]
        kept |= {f"{case}.made": made, f"{case}.real": real}
        numbers = {"fid": calculate_frechet_distance(*gaussians), "whole": [*whole.values()][0]}
        numbers |= dict(zip(("kid", "kid_std"), kid.values()))
        numbers |= {k: found[k] for k in ("precision", "recall")}
        kept |= {f"{case}.{k}": np.asarray(float(x)) for k, x in numbers.items()}
    images = rng.integers(0, 256, (3, 13, 17, 3), dtype=np.uint8)
    noise = rng.normal(size=images.shape) * np.asarray([5, 20, 60])[:, None, None, None]
    blurry = np.round(images * 0.7 + 30 + noise).clip(0, 255).astype(np.uint8)
    pairs = list(zip(images, blurry))
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    settings |= {"data_range": 255, "channel_axis": 2}
    kept |= {
        "images": images,
        "blurry": blurry,
        "psnr": np.asarray([peak_signal_noise_ratio(x, y, data_range=255) for x, y in pairs]),
        "ssim": np.asarray(
            [structural_similarity(x.astype(float), y.astype(float), **settings) for x, y in pairs]
        ),
    }
    save_file(kept, Path(__file__).parent / "image_metrics.safetensors")


def _mean(x):
    return x.astype(np.float64).mean(0)


def _covariance(x):
    return np.cov(x.astype(np.float64), rowvar=False)


if __name__ == "__main__":
    main()
