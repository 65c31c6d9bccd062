"""The decoder of DALL-E 2 at the size of the paper: 64 x 64 images from embeddings of a CLIP.

    python -m mmjax.plan --config=configs/dalle2_decoder_3_5b.py --topology=v5p:4x4x4

Setting: Ramesh et al. 2022 (arXiv 2204.06125), section 2.1 and appendix C, table 3: the U-Net of
the largest GLIDE, texts of 256 tokens, batches of 2,048, 800,000 steps, learning rate, b2 and EMA;
a tenth of the embeddings and half of the texts dropped. The paper states no schedule of the
learning rate and no clipping: they are those of `glide_3_5b`, our choice. The paper's CLIP, a
ViT-H/16, is not published; this one is the image tower of `clip_l14`, whose folder of
`transformers` config.init_from.path names. Published: a zero-shot FID of 10.39 on MS-COCO, with the
paper's prior and upsamplers. Its data are not public: use any shards.
"""

from configs import clip_l14, glide_3_5b
from configs.unclip_emoji import TOWER

LENGTH = 256


def get_config():
    """The config of this experiment."""
    config = glide_3_5b.get_config()
    given = clip_l14.get_config().model
    with config.unlocked():
        config.total_steps = 800_000
        config.data.transform = (
            "decode(min_size=224) | resize_short(224) | center_crop(224) | first_caption"
            f" | tokenize({LENGTH})"
        )
        config.init_from.path = "clip-vit-large-patch14"
        config.init_from.only = TOWER
        config.model.text.length = LENGTH
        config.model.update(
            name="unclip",
            embed_dim=given.embed_dim,
            image={**given.image.to_dict(), "remat": "none"},
            image_dropout=0.1,
            text_dropout=0.5,
        )
        config.optim.update(learning_rate=1.2e-4, freeze=TOWER)
    return config
