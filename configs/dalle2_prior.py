"""The diffusion prior of DALL-E 2, at the size of the paper, on a CLIP of ViT-L/14.

    python -m mmjax.plan --config=configs/dalle2_prior.py --topology=v5p:4x4x4

Settings: Ramesh et al. 2022 (arXiv 2204.06125), appendix C, table 3: width 2048, 24 layers, batches
of 4,096, 600,000 steps, Adam's settings and EMA, and section 2.2: a text dropped from a tenth of
the rows. The paper states neither a schedule of the learning rate nor clipping: they are our
choice. The paper's CLIP, a ViT-H/16, is not published; this one is `clip_l14`, whose folder of
`transformers` config.init_from.path names: its texts have 77 tokens (there 256), and its embeddings
are scaled to unit variance, by 768^1/2 = 27.7 (there by 17.2). Published: a zero-shot FID of 10.39
on MS-COCO, with the paper's decoder. Its data are not public: use any shards.
"""

from configs import clip_l14
from configs.prior_emoji import CLIP
from mmjax.config import defaults


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 4096
    config.total_steps = 600_000
    config.log_every = 100
    config.checkpoint.every = 5000

    config.data.train = {"kind": "webdataset", "pattern": "data/pairs/{00000..09999}.tar"}
    config.data.transform = "decode | resize_short(224) | center_crop(224) | tokenize(77)"
    given = clip_l14.get_config()
    config.tokenizer = given.tokenizer.to_dict()

    config.init_from.path = "clip-vit-large-patch14"
    config.init_from.only = CLIP
    config.model = {
        **given.model.to_dict(),
        "name": "diffusion_prior",
        "dtype": "bfloat16",
        "prior": {"width": 2048, "depth": 24, "heads": 32, "remat": "full"},
    }
    config.loss = {"drop_text": 0.1}
    config.loss_weights = {"prior": 1.0}
    config.ema.decay = 0.9999
    config.optim = {
        "name": "adamw",
        "learning_rate": 1.1e-4,
        "b2": 0.96,
        "eps": 1e-6,
        "weight_decay": 6e-2,
        "grad_clip_norm": 1.0,
        "freeze": CLIP,
    }
    config.mesh = {"data": 1, "fsdp": -1, "tensor": 1}
    return config
