r"""DALL-E at the paper's size: 12 billion parameters, text of 256 tokens and 32 x 32 codes.

    python -m mmjax.train --config=configs/dalle_12b.py --workdir=runs/dalle_12b \
        --config.data.train.pattern='DIR/{00000..24999}.tar' \
        --config.tokenizer.path=BPE --config.init_from.path=DVAE \
        --config.mesh.data=1 --config.mesh.fsdp=-1 --config.mesh.tensor=2
    python -m mmjax.plan --config=configs/dalle_12b.py --topology=v5p:4x4x8 \
        --config.mesh.data=1 --config.mesh.fsdp=64 --config.mesh.tensor=2

Setting: Ramesh et al. 2021 (arXiv 2102.12092), appendix B: 64 layers of 62 heads of 64, batches of
1,024, 430,000 updates, AdamW with b2 0.96; the step size here falls as a cosine, where the paper
halves it by hand, and gradients are clipped in all updates, where the paper's are in the warmup
alone. The matrices of the layers have 12 · 64 · 3,968² = 12,092,178,432 parameters; 62 heads divide
over 2 tensor parts. Expected: not measured here. DVAE is a folder of the discrete VAE as
`mmjax.load` reads it (model_type "dall_e", see mmjax/weights/families/dall_e.py), BPE one with a
tokenizer of at most 16,384 tokens. Not here: the paper's gradients in 16 bits.
"""

from mmjax.config import defaults

SIZE, LENGTH = 256, 256


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 1024
    config.total_steps = 430_000
    config.log_every = 100
    config.checkpoint.every = 1000

    config.data.train = {"kind": "webdataset", "pattern": "data/pairs_250m/{00000..24999}.tar"}
    config.data.transform = (
        f"decode(min_size={SIZE}) | random_resized_crop({SIZE}, scale=(0.8, 1))"
        f" | first_caption | tokenize({LENGTH}, dropout=0.1)"
    )
    config.data.num_threads = 32
    config.tokenizer = {"kind": "pretrained", "path": "data/bpe_16384"}
    config.init_from = {
        "path": "data/dall_e",
        "only": ("image_tokenizer/.*",),
        "language_model": "",
    }

    config.model = {
        "name": "dalle",
        "dtype": "bfloat16",
        "width": 3968,
        "text": {"vocab_size": 16_384, "length": LENGTH},
        "decoder": {
            "depth": 64,
            "heads": 62,
            "mlp_dim": 4 * 3968,
            "activation": "gelu_tanh",
            "remat": "full",
        },
        "image_tokenizer": {
            "kind": "gumbel",
            "image_size": SIZE,
            "codes": 8192,
            "width": 256,
            "blocks": 2,
            "groups": 4,
            "first": 128,
        },
    }
    config.loss_weights = {"text": 1 / 8, "image": 7 / 8}
    config.ema.decay = 0.99 ** (1 / 25)  # 0.99 for each 25 updates
    config.optim = {
        "name": "adamw",
        "learning_rate": 4.5e-4,
        "warmup_steps": 5000,
        "b2": 0.96,
        "weight_decay": 0.045,
        "grad_clip_norm": 4.0,
        "freeze": ("image_tokenizer/.*",),
    }
    return config
