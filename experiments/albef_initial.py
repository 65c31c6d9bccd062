"""What ALBEF's pretraining starts from: an image encoder, and BERT's layers in both text encoders.

    python -m experiments.albef_initial configs/albef_14m.py DEIT BERT OUT
    python -m mmjax.train --config=configs/albef_14m.py --workdir=runs/albef_14m \
        --config.init_from.path=OUT

DEIT and BERT are published folders, such as deit-base-patch16-224 and bert-base-uncased, of the
config's sizes. BERT's first layers become the text encoder, its last ones the fusion encoder, and
its head that of the masked words; positions are resized or truncated. Cross-attention and the
projections are initialized as usual. Source: Li et al. 2021 (arXiv 2107.07651), section 3.1.
"""

import sys
from pathlib import Path
from typing import Any

import jax
from flax import traverse_util

from mmjax import config as configs
from mmjax.layers.position import resize_grid
from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained, load, save_pretrained
from mmjax.variables import initial_params
from mmjax.weights import tokenizer
from mmjax.weights.convert import read_params
from mmjax.weights.families import albef, bert
from mmjax.weights.published import open_folder
from mmjax.weights.tensor_file import Renamed

POSITIONS = "text/embed/position/table"


def initial(model_config: dict[str, Any], image: Path, text: Path) -> Pretrained:
    """The ALBEF that `config.model` describes, with parameters from two published folders.

    Raises:
      ValueError: folders that are no such models, or of other sizes.
    """
    system = make_system({"model": model_config})
    params = initial_params(system.model, system.spec, seed=0)
    params = _with_text(system.model, params, text)
    return Pretrained(
        config=dict(model_config),
        model=system.model,
        params=_with_image(params, image),
        tokenizer=tokenizer.read(text),
        text_length=model_config["text"]["length"],
        transform=f"decode | resize({system.model.image_tower(parent=None).train_size})",
        report="",
    )


def _with_text(model: Any, params: Any, folder: Path) -> Any:
    """The parameters with those of a BERT, as if it were an ALBEF without an image encoder."""
    found = open_folder(folder)
    tensors = Renamed(found.tensors, lambda name: f"text_encoder.{bert.canonical(name)}")
    found = found._replace(tensors=tensors, config=albef.published_config(model))
    found, _ = albef.prepare(found)
    flat = traverse_util.flatten_dict(params, sep="/")
    target = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in flat.items()}
    rows, width = flat[POSITIONS].shape
    stored = found.tensors.shapes["text_encoder.embeddings.position_embeddings.weight"][0]
    target[POSITIONS] = jax.ShapeDtypeStruct((stored, width), flat[POSITIONS].dtype)
    target = traverse_util.unflatten_dict(target, sep="/")
    read, _ = read_params(found.tensors, albef.rows(model), target, initial=lambda: params)
    read = traverse_util.flatten_dict(read, sep="/")
    if stored < rows:
        raise ValueError(
            f"'{folder}' has positions for {stored} tokens and config.model.text.length is {rows}: "
            "lower it."
        )
    read[POSITIONS] = read[POSITIONS][:rows]
    return traverse_util.unflatten_dict(read, sep="/")


def _with_image(params: Any, folder: Path) -> Any:
    """The parameters with those of a ViT, its positions resized to the image's grid."""
    ours = traverse_util.flatten_dict(params, sep="/")
    theirs = traverse_util.flatten_dict(load(folder).params, sep="/")
    theirs = {f"image/{k}".replace("image/norm/", "image_norm/"): x for k, x in theirs.items()}
    for name in (k for k in ours if k.startswith(("image/", "image_norm/"))):
        if name not in theirs:
            raise ValueError(f"'{folder}' has no {name}: give a ViT with a class token.")
        array = theirs[name]
        if name == "image/position/table":
            array = resize_grid(array, ours[name].shape[:2], "bicubic")
        if array.shape != ours[name].shape:
            raise ValueError(
                f"'{folder}' has {name} {list(array.shape)}, and config.model "
                f"{list(ours[name].shape)}: give a ViT of the config's sizes."
            )
        ours[name] = array
    return traverse_util.unflatten_dict(ours, sep="/")


if __name__ == "__main__":
    config_file, image_folder, text_folder, out = sys.argv[1:]
    made = initial(configs.load(config_file).model.to_dict(), Path(image_folder), Path(text_folder))
    save_pretrained(made, out)
