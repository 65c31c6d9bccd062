r"""SmolVLM of 256 million parameters: SigLIP-B/16 of 512 pixels and SmolLM2-135M, in tiles.

    python -m mmjax.train --config=configs/smolvlm_256m.py --workdir=runs/smolvlm_256m \
        --config.init_from.path=SMOLVLM

Marafioti et al. 2025 (arXiv 2504.05299): pixel shuffle of 4 x 4 patches to one token, 64 for each
tile of 512 pixels, images of up to 2,048 pixels, rows of 8,192 tokens. The sizes are those of the
published SmolVLM-256M, SMOLVLM its folder; the settings of the optimizer are our own, for a
fine-tuning on conversations of your own (see mmjax/data/sources/conversations.py), of which nothing
is expected here. Rows hold up to 17 tiles: one image of 2,048 x 2,048 pixels.
"""

from configs.llava_smollm2 import SMOLLM2
from mmjax.config import defaults

IMAGE_TOKEN, PER_IMAGE, LENGTH, TILES = 49_190, 64, 8192, 17
AROUND = "<fake_token_around_image>"
PLACES = {
    "start": f"{AROUND}<global-img>",
    "end": AROUND,
    "tile": f"{AROUND}<row_{{row}}_col_{{column}}>",
}


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 64
    config.total_steps = 20_000
    config.log_every = 20
    config.checkpoint.every = 1000
    path = "data/instructions/train.jsonl"
    config.data.train = {"kind": "conversations", "path": path}
    config.data.transform = (
        f"decode | tiles(512, 2048) | converse({LENGTH}, {IMAGE_TOKEN}, {PER_IMAGE}, "
        f"images={TILES}, size=512, places={PLACES})"
    )
    config.data.num_threads = 32
    config.tokenizer = {"kind": "pretrained", "path": "data/SmolVLM-256M-Instruct"}
    config.init_from.path = "data/SmolVLM-256M-Instruct"
    config.model = {
        "name": "llava",
        "dtype": "bfloat16",
        "image": {
            "variant": "B/16",
            "image_size": (512, 512),
            "activation": "gelu_tanh",
            "position_resize": "bicubic",
            "remat": "dots",
        },
        "projector": {"kind": "linear", "shuffle": 4, "use_bias": False},
        "text": {**SMOLLM2, "vocab_size": 49_280, "length": LENGTH, "tied": False},
        "image_token": IMAGE_TOKEN,
        "max_images": TILES,
        "places": PLACES,
        "lock_image": False,
    }
    config.model["text"]["decoder"] = {**SMOLLM2["decoder"], "remat": "dots"}
    config.loss_weights = {"captioning": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-4,
        "warmup_steps": 500,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
    }
    return config
