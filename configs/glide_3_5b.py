"""GLIDE at the size of the paper: 64 x 64 images from texts, 3.5 billion parameters.

    python -m mmjax.plan --config=configs/glide_3_5b.py --topology=v5p:4x4x4

Setting: Nichol et al. 2021 (arXiv 2112.10741), section 4.1: the U-Net of ADM for 64 pixels at width
512, a text transformer of 24 layers of width 2048, batches of 2,048, 2.5 million steps; there a
fifth of the texts is dropped in a second phase (section 4.2), here from the start. Texts of 128
tokens, dropout, heads of 64 and the noise schedule are those of the released smaller model
(openai/glide-text2im, model_creation.py). The paper states no optimizer, learning rate or average
of the weights: they are our choice. Published: a zero-shot FID of 12.24 on MS-COCO at 256 pixels,
with its upsampler and guidance 1.5 (table 2). Its data are not public: use any shards. The
tokenizer here is GPT-2's.
"""

from mmjax.config import defaults

SIZE, LENGTH = 64, 128


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 2048
    config.total_steps = 2_500_000
    config.log_every = 100
    config.checkpoint.every = 5000

    config.data.train = {"kind": "webdataset", "pattern": "data/image_text_250m/{00000..24999}.tar"}
    config.data.transform = (
        f"decode(min_size={SIZE}) | resize_short({SIZE}) | center_crop({SIZE}) | flip"
        f" | first_caption | tokenize({LENGTH})"
    )
    config.data.num_threads = 32
    config.tokenizer = {"kind": "file", "path": "data/gpt2/tokenizer.json"}
    config.model = {
        "name": "glide",
        "dtype": "bfloat16",
        "image_size": SIZE,
        "backbone": {
            "kind": "unet",
            "channels": (512, 1024, 1536, 2048),
            "blocks": 3,
            "attention": (False, True, True, True),
            "head_dim": 64,
            "dropout": 0.1,
            "remat": "full",
        },
        "text": {
            "vocab_size": 50_257,
            "length": LENGTH,
            "width": 2048,
            "depth": 24,
            "heads": 32,
            "remat": "full",
        },
        "text_dropout": 0.2,
        "schedule": {"name": "squared_cosine", "steps": 1000},
    }
    config.loss_weights = {"simple": 1.0, "vlb": 0.001}
    config.ema.decay = 0.9999
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-4,
        "warmup_steps": 5000,
        "b2": 0.999,
        "weight_decay": 0.0,
        "grad_clip_norm": 1.0,
    }
    config.mesh = {"data": 1, "fsdp": -1, "tensor": 1}
    return config
