r"""nanoVLM of 222 million parameters: SigLIP-B/16 of 224 pixels and SmolLM2-135M.

    python -m mmjax.train --config=configs/nanovlm_222m.py --workdir=runs/nanovlm_222m \
        --config.init_from.path=SIGLIP --config.init_from.language_model=SMOLLM2

huggingface/nanoVLM: all parts are trained, pixel shuffle of 2 x 2 patches to one token, 49 for an
image. Published by its authors: 35.3 % on MMStar, after about six hours on one H100. The learning
rate here is one for all parts, where theirs is larger for the projector; it, the batch size and the
number of updates are our own choice. The data are conversations of your own (see
mmjax/data/sources/conversations.py), theirs The Cauldron. SIGLIP is a folder with
google/siglip-base-patch16-224, SMOLLM2 with HuggingFaceTB/SmolLM2-135M.
"""

from configs.llava_smollm2 import SMOLLM2
from mmjax.config import defaults

IMAGE_TOKEN, PER_IMAGE, LENGTH = 5, 49, 256  # <file_sep>


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 256
    config.total_steps = 6_600
    config.log_every = 20
    config.checkpoint.every = 500
    path = "data/instructions/train.jsonl"
    config.data.train = {"kind": "conversations", "path": path}
    config.data.transform = (
        f"decode | resize(224, 'bicubic') | converse({LENGTH}, {IMAGE_TOKEN}, {PER_IMAGE}, "
        "size=224, template='chatml')"
    )
    config.data.num_threads = 16
    config.tokenizer = {"kind": "pretrained", "path": "data/SmolLM2-135M"}
    config.init_from.path = "data/siglip-base-patch16-224"
    config.init_from.only = ("image/.*",)
    config.init_from.language_model = "data/SmolLM2-135M"
    config.model = {
        "name": "llava",
        "dtype": "bfloat16",
        "image": {
            "variant": "B/16",
            "image_size": (224, 224),
            "activation": "gelu_tanh",
            "position_resize": "bicubic",
        },
        "projector": {"kind": "linear", "shuffle": 2, "use_bias": False},
        "text": {**SMOLLM2, "length": LENGTH},
        "image_token": IMAGE_TOKEN,
        "lock_image": False,
    }
    config.loss_weights = {"captioning": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-4,
        "warmup_steps": 200,
        "weight_decay": 0.01,
        "grad_clip_norm": 1.0,
    }
    return config
