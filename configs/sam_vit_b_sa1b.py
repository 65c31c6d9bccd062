r"""SAM with ViT-B/16 on SA-1B.

    python -m mmjax.train --config=configs/sam_vit_b_sa1b.py --workdir=runs/sam_vit_b_sa1b \
        --config.data.train.root=DIR --config.init_from.path=MAE \
        "--config.init_from.only=('image/.*',)"

As sam_vit_h_sa1b, with the paper's changes for ViT-B (Kirillov et al. 2023, arXiv 2304.02643,
appendix A): 180,000 steps of 128 images, layer-wise decay 0.6, drop path 0.6. The paper does not
say at which steps the learning rate of ViT-B falls; here at the same fractions of the run as that
of ViT-H. Without `init_from` it starts from scratch, so expect less.
"""

from configs.sam_vit_h_sa1b import get_config as get_large
from configs.sam_vit_h_sa1b import layer_decay


def get_config():
    """The config of this experiment."""
    config = get_large()
    config.batch_size = 128
    config.total_steps = 180_000
    config.model.image.update(variant="B/16", global_blocks=(2, 5, 8, 11), stochastic_depth=0.6)
    config.optim.learning_rate_multipliers = layer_decay(12, 0.6)
    steps = ((0, 8e-4), (119_999, 8e-4), (120_000, 8e-5), (173_332, 8e-5), (173_333, 8e-6))
    config.optim.learning_rate = steps
    return config
