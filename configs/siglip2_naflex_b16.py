r"""SigLIP 2 NaFlex ViT-B/16: images at their own aspect ratio, in five patch budgets.

    python -m mmjax.train --config=configs/siglip2_naflex_b16.py --workdir=runs/naflex \
        --config.data.train.parts.patches_128.source.pattern='DIR/{00000..41407}.tar' \
        --config.tokenizer.path=FILE

Setting: Tschannen et al. 2025 (arXiv 2502.14786): sigmoid loss, batch 32,768, images of any aspect
ratio in patches of 16 pixels, texts of 64 tokens of Gemma's tokenizer in lower case. Not confirmed
here: the budgets, of which each step draws one; that this is the last tenth of a training of 40 B
examples, begun at 256 x 256 pixels (--config.init_from=RUN, a SigLIP with pool "map" and 16 x 16
positions); the optimizer, which is SigLIP's. Left out: the captioning decoder, self-distillation
and masked prediction of the paper. Published weights: load `google/siglip2-base-patch16-naflex`,
whose 375,234,050 parameters these are; their numbers, from WebLI, are not to be expected of other
data.
"""

import math

from configs.siglip_b16 import get_config as siglip_b16

BUDGETS = (128, 256, 576, 784, 1024)


def get_config():
    """The config of this experiment."""
    config = siglip_b16()
    config.name = "siglip2_naflex_b16"
    config.total_steps = 4_000_000_000 // config.batch_size
    shards, config.data.train = (
        config.data.train,
        {
            "kind": "mixture",
            "whole_batches": True,
            "parts": {f"patches_{n}": {"transform": f"decode | patches({n}, 16)"} for n in BUDGETS},
        },
    )
    config.data.train.parts[f"patches_{BUDGETS[0]}"].source = shards
    pattern = config.data.train.parts[f"patches_{BUDGETS[0]}"].source.get_ref("pattern")
    for n in BUDGETS[1:]:
        config.data.train.parts[f"patches_{n}"].source = {"kind": shards.kind, "pattern": pattern}
    config.data.transform = "first_caption | tokenize(64)"
    with config.model.unlocked():
        config.model.logit_scale_max = math.inf
        del config.model.image.image_size, config.model.image.pool
        config.model.image.update(kind="naflex", position_grid=(16, 16), max_patches=max(BUDGETS))
    config.model.text.vocab_size = 256_000
    return config
