"""A U-Net of diffusion on CPU: ours against diffusers on PyTorch, in the same interleaved run.

    python experiments/benchmarks/unet.py                    # all: sets up the peers, once
    python experiments/benchmarks/unet.py --workloads ddim --rounds 2

The U-Net of GLIDE's base model at a quarter of its width (48, 96, 144, 192 channels, 64 px, 3
blocks a level, a context of 128 tokens), random weights, fp32. `train`: a step of AdamW on the
squared error for 4 images. `ddim`: 50 steps of DDIM for 8 images, without guidance. Each contender
is a process of its own, warmed up beforehand; in every round they take turns, and a ratio is the
median over rounds of (the peer's time / ours in that round), above 1 where ours is faster. All may
use both cores.

The peers are installed in build/bench-venv (see workers.py).
"""

import sys

from workers import asked_for, compare, measure_each, options, work

WORKLOADS = {"train": 4, "ddim": 8}  # images
SIDE, TOKENS, WIDTH, STEPS = 64, 128, 512, 50
CHANNELS, HEAD = (48, 96, 144, 192), 48
GROUPS, BLOCKS = 16, 3
RATE = 1e-4


def inputs(workload):
    """x [B, H, W, 3], noise, times [B] and context [B, S, D]."""
    import numpy as np

    rng, batch = np.random.default_rng(0), WORKLOADS[workload]
    images = (rng.normal(size=(batch, SIDE, SIDE, 3)).astype(np.float32) for _ in range(2))
    time = rng.integers(0, 1000, batch).astype(np.float32)
    return (*images, time, rng.normal(size=(batch, TOKENS, WIDTH)).astype(np.float32))


def ours(workload):
    """mmjax.models.unet, with optax or mmjax.sample."""
    import jax
    import optax
    from flax.core import meta

    from mmjax.losses.diffusion import squared_error
    from mmjax.models.unet import UNet
    from mmjax.sample import samplers
    from mmjax.sample.grid import even
    from mmjax.sample.schedules import Schedule

    attention = (False, True, True, True)
    model = UNet(CHANNELS, BLOCKS, 3, attention, head_dim=HEAD, groups=GROUPS)
    x, noise, time, context = jax.device_put(inputs(workload))

    def predict(params, x, time):
        return model.apply({"params": params}, x, time, context=context)

    def start():
        given = model.init(jax.random.key(0), x, time, context=context)["params"]
        return jax.tree.map(lambda p: p + 0.01, meta.unbox(given))  # some begin at 0

    params = jax.jit(start)()
    if workload == "ddim":
        process = samplers.Process(even(Schedule(), STEPS), clip=1.0)

        @jax.jit
        def sample(params, x):
            found, _ = samplers.ddim(lambda x, t: predict(params, x, t), x, None, process)
            return found.mean()

        return lambda: sample(params, x)

    optimizer = optax.adamw(RATE)
    state = [params, jax.jit(optimizer.init)(params)]

    def update(params, moments):
        def loss(params):
            return squared_error(predict(params, x, time), noise).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, moments = optimizer.update(grads, moments, params)
        return value, optax.apply_updates(params, updates), moments

    update = jax.jit(update, donate_argnums=(0, 1))

    def step():
        value, *state[:] = update(*state)
        return value

    return step


def diffusers(workload, memory="contiguous_format"):
    """diffusers' U-Net of the same sizes, with torch's AdamW or its DDIM scheduler."""
    import torch
    from diffusers import DDIMScheduler, UNet2DConditionModel

    torch.set_num_threads(2)
    attends = ["SimpleCrossAttn{}Block2D"] * 3
    model = UNet2DConditionModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=3,
        block_out_channels=CHANNELS,
        layers_per_block=BLOCKS,
        norm_num_groups=GROUPS,
        attention_head_dim=HEAD,
        cross_attention_dim=WIDTH,
        resnet_time_scale_shift="scale_shift",
        down_block_types=("ResnetDownsampleBlock2D", *(x.format("Down") for x in attends)),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=(*(x.format("Up") for x in attends), "ResnetUpsampleBlock2D"),
    ).to(memory_format=getattr(torch, memory))
    x, noise, time, context = (torch.from_numpy(a) for a in inputs(workload))
    x, noise = (a.permute(0, 3, 1, 2).contiguous() for a in (x, noise))
    if workload == "ddim":
        scheduler = DDIMScheduler(beta_schedule="linear", timestep_spacing="linspace")
        scheduler.set_timesteps(STEPS)
        model.eval()

        @torch.inference_mode()
        def sample():
            y = x
            for t in scheduler.timesteps:
                output = model(y, t, context).sample
                y = scheduler.step(output, t, y).prev_sample
            return y.mean()

        return sample
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-4)

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x, time, context).sample, noise)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


CONTENDERS = {
    "ours": ours,
    "diffusers": diffusers,
    "diffusers_channels_last": lambda workload: diffusers(workload, "channels_last"),
}


def main():
    parser = options(__doc__.splitlines()[0], CONTENDERS, WORKLOADS, dtypes=["float32"])
    measure_each(parser.parse_args(), compare(__file__, WORKLOADS.get, "images"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        name, workload, _, steps = asked_for(sys.argv)
        work(name, workload, steps, lambda: CONTENDERS[name](workload["name"]))
    else:
        main()
