"""Images per second of EfficientNet-Lite on CPU: ours against timm on PyTorch, in the same
interleaved run.

    python experiments/benchmarks/efficientnet.py                     # all: sets up the peers, once
    python experiments/benchmarks/efficientnet.py --workloads lite2 --rounds 2

A forward pass of 32 images in fp32 with random weights, from pixels to features; ours also
normalizes them. `ours_grouped` is ours with XLA's own grouped convolution in place of shifted
products (mmjax/layers/depthwise.py); `timm_channels_last` is timm in that memory format of PyTorch.
Each contender is a process of its own, warmed up beforehand; in every round they take turns, and a
ratio is the median over rounds of (peer's time / ours in that round), above 1 where ours is faster.
All may use both cores.

The peers are installed in build/bench-venv (see workers.py).
"""

import functools
import sys

from contenders import AbsentFinder
from workers import asked_for, compare, measure_each, options, work

BATCH = 32
WORKLOADS = {"lite0": 224, "lite2": 260}  # sides of the images


def pixels(workload):
    """[B, H, W, 3] in 0..255."""
    import numpy as np

    side = WORKLOADS[workload]
    return np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), np.uint8)


def ours(workload, **platform_settings):
    """mmjax.models.efficientnet."""
    import dataclasses

    import jax

    from mmjax.layers import platform
    from mmjax.models.efficientnet import EfficientNet, lite_fields
    from mmjax.variables import initial_params

    settings = dataclasses.replace(platform.CPU, **platform_settings)
    model, image = EfficientNet(**lite_fields(workload)), jax.device_put(pixels(workload))
    params = initial_params(model, {"image": jax.ShapeDtypeStruct(image.shape, image.dtype)}, 0)

    @jax.jit
    def features(params, image):
        with platform.compiling_for(settings):
            return model.apply({"params": params}, {"image": image})["image_features"].sum()

    return functools.partial(features, params, image)


def timm(workload, memory="contiguous_format"):
    """timm's model of the same name."""
    sys.meta_path.insert(0, AbsentFinder())
    import timm
    import torch

    torch.set_num_threads(2)
    memory = getattr(torch, memory)
    model = (
        timm.create_model(f"tf_efficientnet_{workload}", num_classes=0)
        .eval()
        .to(memory_format=memory)
    )
    image = (torch.from_numpy(pixels(workload)).permute(0, 3, 1, 2).float() - 127) / 128
    image = image.contiguous(memory_format=memory)

    def step():
        with torch.inference_mode():
            return model(image).sum()

    return step


CONTENDERS = {
    "ours": ours,
    "ours_grouped": functools.partial(ours, depthwise_by_shifts=False),
    "timm": timm,
    "timm_channels_last": functools.partial(timm, memory="channels_last"),
}


def main():
    parser = options(__doc__.splitlines()[0], CONTENDERS, WORKLOADS, dtypes=["float32"])
    measure_each(parser.parse_args(), compare(__file__, lambda workload: BATCH, "images"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        name, workload, _, steps = asked_for(sys.argv)
        work(name, workload, steps, lambda: CONTENDERS[name](workload["name"]))
    else:
        main()
