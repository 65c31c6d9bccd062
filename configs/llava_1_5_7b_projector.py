r"""LLaVA-1.5 of 7 billion parameters, first stage: the projector alone, on captions.

    python -m mmjax.train --config=configs/llava_1_5_7b_projector.py \
        --workdir=runs/llava_1_5_7b_projector

Setting: Liu et al. 2023 (arXiv 2310.03744), and haotian-liu/LLaVA, scripts/v1_5/pretrain.sh: one
epoch of 558,000 images with captions in batches of 256, a learning rate of 1e-3. A caption ends
with an end token here, with a line break there. CLIP is a folder with
openai/clip-vit-large-patch14-336, VICUNA with vicuna-7b-v1.5. The paper has no result of this stage
alone, so none is expected.
"""

from configs import llava_1_5_7b as second
from configs.llava_1_5_7b import IMAGE_TOKEN, IMAGES, LENGTH, PER_IMAGE

EPOCH = 558_128 // 256


def get_config():
    """The config of this experiment."""
    config = second.get_config()
    config.batch_size = 256
    config.total_steps = EPOCH
    path = "data/llava/blip_laion_cc_sbu_558k.json"
    config.data.train = {"kind": "conversations", "path": path, "images": "data/llava/pretrain"}
    config.data.transform = (
        f"{IMAGES} | converse({LENGTH}, {IMAGE_TOKEN}, {PER_IMAGE}, size=336, template='plain')"
    )
    config.init_from.path = "data/clip-vit-large-patch14-336"
    config.init_from.only = ("image/.*",)
    config.init_from.language_model = "data/vicuna-7b-v1.5"
    config.optim.freeze = (r"image/.*", r"text/.*")
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = round(0.03 * EPOCH)
    return config
