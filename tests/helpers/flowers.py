"""A TFDS data set as a user would write one."""

import io
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds
from PIL import Image


def picture(color=(10, 20, 30), kind="PNG", size=(6, 4)):
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, kind)
    return out.getvalue()


class Flowers(tfds.core.GeneratorBasedBuilder):
    """Three flowers, with unusual feature names."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar[dict] = {}
    pkg_dir_path = Path(__file__).parent

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "photo": tfds.features.Image(shape=(4, 6, 3)),
                    "title": tfds.features.Text(),
                    "others": tfds.features.Sequence(tfds.features.Text()),
                    "kind": tfds.features.ClassLabel(names=["rose", "lily"]),
                }
            )
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(3):
            yield (
                i,
                {
                    "photo": picture((i, 0, 0)),
                    "title": f"título {i}",
                    "others": [f"a{i}", f"b{i}"],
                    "kind": i % 2,
                },
            )
