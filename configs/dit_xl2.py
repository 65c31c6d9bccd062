r"""DiT-XL/2 on latents of ImageNet at 256 px, the published setting.

    python -m mmjax.train --config=configs/dit_xl2.py --workdir=runs/dit_xl2 \
        --config.data.train.root=DIR --config.mesh.fsdp=16

DIR has ArrayRecord files as `mmjax.data.convert` writes them, whose examples have `latents`
[32, 32, 4] float32, those of the autoencoder sd-vae-ft-ema times 0.18215, and `label`. mmjax has
neither that autoencoder nor a way to make these examples; a source of a plugin serves as well.
Setting: Peebles and Xie 2022 (arXiv 2212.09748) as in facebookresearch/DiT, train.py and models.py:
AdamW at a constant 1e-4 without decay, batch 256, EMA 0.9999, classes dropped with 0.1, learned
variance; 7M steps are the paper's. Published: FID 2.27 in the paper with guidance 1.5, 2.21 of the
same weights in fp32 in PyTorch (that repository's README). The folders of diffusers embed times and
normalize otherwise (findings/diffusers_dit_time_embedding.sh): loaded ones keep to that.
"""

from mmjax.config import defaults


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 256
    config.total_steps = 7_000_000
    config.log_every = 100
    config.checkpoint.every = 10_000
    config.data.train = {"kind": "array_record", "root": "data/imagenet_latents"}
    config.data.transform = "label"
    config.data.num_threads = 32
    config.model = {
        "name": "diffusion",
        "latents": (32, 32, 4),
        "num_classes": 1000,
        "condition_dropout": 0.1,
        "learned_variance": True,
        "dtype": "bfloat16",
        "backbone": {"kind": "dit", "variant": "XL/2", "remat": "dots"},
    }
    config.loss_weights = {"simple": 1.0, "vlb": 0.001}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-4,
        "schedule": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
    }
    config.ema = {"decay": 0.9999}
    return config
