"""big_vision's .npz files: ViTs, and SigLIPs of two towers (github.com/google-research/big_vision).

The files contain no settings: most are inferred from names and shapes, the rest are the values of
big_vision's configs.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.text.tokenizer import Tokenizer
from mmjax.models.clip import CLIP
from mmjax.models.vit import ViT
from mmjax.weights import tokenizer
from mmjax.weights.layouts import Row, reshaped, same
from mmjax.weights.published import Published
from mmjax.weights.tensor_file import Npz, Tensors

IGNORED = (r"(opt|extra|chrono|step)(/.*)?",)  # training state
GEMMA_TOKENS = 256_000  # vocabulary of SigLIP 2, which was trained on lowercase text
SIZES = {(14, 27): 384}  # patch size, patches per side -> pixels, with partial patches (So400m)
SINCOS_SIZE = 224  # image size of big_vision's ViTs with fixed positions; not in their files

# The first files number all modules of a block together, newer files each kind by itself.
_BLOCK = {
    "LayerNorm_2": "LayerNorm_1",
    "MlpBlock_3": "MlpBlock_0",
    "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
}
_POSITIONS = ("Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding")
_HEAD_PARTS = ("probe", "MlpBlock_0", "MultiHeadDotProductAttention_0", "LayerNorm_0")


def open_file(path: Path) -> Published:
    """Open a .npz file of big_vision.

    Raises:
      ValueError: a file that is damaged, or of another kind.
    """
    return Published(path.parent, {"model_type": "big_vision"}, {}, Canonical(Npz(path)))


class _Array(NamedTuple):
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


class Canonical(Tensors):
    """A file's tensors under the current names of big_vision, with blocks stacked as by `scan`.

    Converts the same old names and forms as big_vision's `fix_old_checkpoints` and `load`. The
    position of the class token is "cls_position" (0 where it is part of "cls").
    """

    def __init__(self, file: Tensors):
        self.name = file.name
        starts = ("params/", "opt/target/", "")
        start = next(s for s in starts if any(name.startswith(s) for name in file.shapes))
        found = {
            n.removeprefix(start): _Array(shape, lambda n=n: file.read(n))
            for n, shape in file.shapes.items()
        }
        found = _stacked({_renamed(name): array for name, array in found.items()})
        for tower in ("img/", ""):
            _split_positions(found, tower)
        extra = found.pop("txt/Encoder_0/pos_embedding", None)
        if extra is not None:  # some files have two, and both were added
            table = found["txt/pos_embedding"]
            found["txt/pos_embedding"] = _Array(table.shape, lambda: table.read() + extra.read())
        self._found = found
        self.shapes = {name: array.shape for name, array in found.items()}

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        return self._found[name].read()


def _renamed(name: str) -> str:
    """The current name of a tensor."""
    tower = next((t for t in ("img/", "txt/") if name.startswith(t)), "")
    rest = name.removeprefix(tower)
    if rest in _POSITIONS:
        rest = "pos_embedding"
    if rest.split("/")[0] in _HEAD_PARTS:
        rest = f"MAPHead_0/{rest}"
    block = re.fullmatch(r"(Transformer/encoderblock_\d+)/(\w+)/(.+)", rest)
    if block:
        rest = f"{block[1]}/{_BLOCK.get(block[2], block[2])}/{block[3]}"
    return tower + rest


def _stacked(found: dict[str, _Array]) -> dict[str, _Array]:
    """Stack the tensors `encoderblock_<i>/...` into one tensor `encoderblock/...`."""
    layers: dict[str, dict[int, _Array]] = {}
    whole = {}
    for name, array in found.items():
        match = re.fullmatch(r"(.*encoderblock)_(\d+)/(.+)", name)
        if match:
            layers.setdefault(f"{match[1]}/{match[3]}", {})[int(match[2])] = array
        else:
            whole[name] = array
    for name, parts in layers.items():
        parts = [parts[i] for i in sorted(parts)]
        whole[name] = _Array(
            (len(parts), *parts[0].shape), lambda parts=parts: np.stack([x.read() for x in parts])
        )
    return whole


def _split_positions(found: dict[str, _Array], tower: str) -> None:
    """Split the row of the class token, if any, from a table of positions."""
    name, token = f"{tower}pos_embedding", found.get(f"{tower}cls")
    if token is not None:
        zeros = np.zeros(token.shape, np.float32)
        found[f"{tower}cls_position"] = _Array(token.shape, lambda: zeros)
    if name not in found:
        return
    table = found[name]
    rows = table.shape[1]
    if math.isqrt(rows) ** 2 == rows - 1:
        shape = (1, rows - 1, table.shape[2])
        found[name] = _Array(shape, lambda: table.read()[:, 1:])
        if token is not None:
            found[f"{tower}cls_position"] = _Array(token.shape, lambda: table.read()[:, :1])


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of the model in a file.

    Raises:
      ValueError: a file that holds neither a ViT nor two towers, or one of NaFlex.
    """
    shapes = found.tensors.shapes
    if "embedding/kernel" in shapes:
        return {"name": "vit", **_image(found.tensors, "")}
    if not {"img/embedding/kernel", "txt/Embed_0/embedding"} <= shapes.keys():
        raise ValueError(
            f"'{found.tensors.name}' is neither a ViT nor a SigLIP of big_vision: it does not have "
            "'embedding/kernel', or 'img/embedding/kernel' and 'txt/Embed_0/embedding'."
        )
    image = _image(found.tensors, "img/")
    projects = image.pop("num_classes") is not None
    vocabulary, width = shapes["txt/Embed_0/embedding"]
    return {
        "name": "clip",
        "embed_dim": shapes["txt/head/kernel"][1],
        "image_proj": projects,
        "proj_bias": True,
        "logit_scale_max": math.inf,
        "logit_bias_init": -10.0 if "b" in shapes else None,
        "image": image,
        "text": {
            **_sizes(shapes, "txt/Encoder_0"),
            "vocab_size": vocabulary,
            "length": shapes["txt/pos_embedding"][1],
            "causal": False,
            "pool": "map" if "txt/MAPHead_0/probe" in shapes else "last",
        },
    }


def _image(tensors: Tensors, tower: str) -> dict[str, Any]:
    """Fields of `ViT`."""
    shapes = tensors.shapes
    kernel = shapes[f"{tower}embedding/kernel"]
    if len(kernel) != 4:
        raise ValueError(
            f"'{tensors.name}' is a SigLIP 2 of any resolution (NaFlex), which cannot be loaded: "
            "use one of fixed resolution."
        )
    size, position, resize = SINCOS_SIZE, "sincos2d", "none"
    if f"{tower}pos_embedding" in shapes:
        rows = shapes[f"{tower}pos_embedding"][1]
        side, position, resize = math.isqrt(rows), "learned", "corners"
        if side * side != rows:
            raise ValueError(
                f"'{tensors.name}' has {rows} positions of patches, which is not a square: only "
                "models of square images can be loaded."
            )
        size = SIZES.get((kernel[0], side), side * kernel[0])
    pools = {"cls": f"{tower}cls", "map": f"{tower}MAPHead_0/probe"}
    return {
        **_sizes(shapes, f"{tower}Transformer"),
        "patch_size": kernel[0],
        "image_size": size,
        "position": position,
        "position_resize": resize,
        "drop_partial_patches": size % kernel[0] > 0,
        "pool": next((pool for pool, name in pools.items() if name in shapes), "mean"),
        "pre_logits": shapes.get(f"{tower}pre_logits/bias", (None,))[0],
        "num_classes": shapes.get(f"{tower}head/bias", (None,))[0],
    }


def _sizes(shapes: dict[str, tuple[int, ...]], encoder: str) -> dict[str, Any]:
    block = f"{encoder}/encoderblock"
    query = f"{block}/MultiHeadDotProductAttention_0/query/kernel"
    if query not in shapes:
        raise ValueError(f"The file has no '{query}', which a model of big_vision has.")
    depth, width, heads, _ = shapes[query]
    return {
        "width": width,
        "depth": depth,
        "heads": heads,
        "mlp_dim": shapes[f"{block}/MlpBlock_0/Dense_0/kernel"][-1],
        "activation": "gelu_tanh",
    }


def transform(found: Published) -> str:
    """The chain of transforms to the input of the model, as in the evaluations of big_vision."""
    config = model_config(found)
    size = config.get("image", config)["image_size"]
    return f"decode | resize({size}, 'bilinear', antialias=False)"


def read_tokenizer(found: Published) -> Tokenizer | None:
    """The tokenizer.json next to the file, if there is one."""
    vocabulary = found.tensors.shapes["txt/Embed_0/embedding"][0]
    return tokenizer.read(found.folder, begins=False, lowercase=vocabulary == GEMMA_TOKENS)


def rows(model: ViT | CLIP) -> list[Row]:
    """The rename table of a model."""
    if isinstance(model, ViT):
        return _tower_rows(model, "", "")
    image, text = model.image_tower(parent=None), model.text_tower(parent=None)
    length = text.length
    table = [
        *_tower_rows(image, "image/", "img/"),
        *same("text/embedding", "txt/Embed_0/embedding"),
        *reshaped("text/position/table", "txt/pos_embedding", (length, -1), (1, length, -1)),
        *_encoder_rows("text", "txt/Encoder_0"),
        *_affine("text_proj", "txt/head"),
        *reshaped("logit_scale", "t", (), (1,)),
    ]
    if text.pool == "map":
        table += _pool_rows("text/pool", "txt/MAPHead_0")
    if model.image_proj:
        table += _affine("image_proj", "img/head")
    if model.logit_bias_init is not None:
        table += reshaped("logit_bias", "b", (), (1,))
    return table


def _tower_rows(image: ViT, ours: str, theirs: str) -> list[Row]:
    patch = image.sizes["patch_size"]
    table = [
        *reshaped(
            f"{ours}stem/projection/kernel",
            f"{theirs}embedding/kernel",
            (patch * patch * 3, -1),
            (patch, patch, 3, -1),
        ),
        *same(f"{ours}stem/projection/bias", f"{theirs}embedding/bias"),
        *_encoder_rows(ours.removesuffix("/"), f"{theirs}Transformer"),
    ]
    if image.position == "learned":
        grid = tuple(side // patch for side in image.train_size)
        name, flat = f"{theirs}pos_embedding", (1, grid[0] * grid[1], -1)
        table += reshaped(f"{ours}position/table", name, (*grid, -1), flat)
    if image.pool == "cls":
        table += reshaped(f"{ours}class_token", f"{theirs}cls", (-1,), (1, 1, -1))
        table += reshaped(f"{ours}class_position", f"{theirs}cls_position", (-1,), (1, 1, -1))
    if image.pool == "map":
        table += _pool_rows(f"{ours}pool", f"{theirs}MAPHead_0")
    if image.pre_logits is not None:
        table += _affine(f"{ours}pre_logits", f"{theirs}pre_logits")
    if image.num_classes is not None:
        table += _affine(f"{ours}head", f"{theirs}head")
    return table


def _encoder_rows(ours: str, theirs: str) -> list[Row]:
    """Blocks, which differ from ours only in queries, keys and values; and the final norm."""
    block = f"{ours}/transformer/layers".removeprefix("/")
    their_block = f"{theirs}/encoderblock"
    attention = f"{their_block}/MultiHeadDotProductAttention_0"
    return [
        *_together(f"{block}/attention/qkv", attention, ("query", "key", "value")),
        *_affine(f"{block}/attention/out", f"{attention}/out"),
        *_affine(f"{block}/norm_attention", f"{their_block}/LayerNorm_0", "scale"),
        *_affine(f"{block}/norm_mlp", f"{their_block}/LayerNorm_1", "scale"),
        *_affine(f"{block}/mlp/up", f"{their_block}/MlpBlock_0/Dense_0"),
        *_affine(f"{block}/mlp/down", f"{their_block}/MlpBlock_0/Dense_1"),
        *_affine(f"{ours}/norm".removeprefix("/"), f"{theirs}/encoder_norm", "scale"),
    ]


def _pool_rows(ours: str, theirs: str) -> list[Row]:
    attention = f"{theirs}/MultiHeadDotProductAttention_0"
    table = reshaped(f"{ours}/probe", f"{theirs}/probe", (1, -1), (1, 1, -1))
    for name in ("query", "out"):
        table += _affine(f"{ours}/attention/{name}", f"{attention}/{name}")
    return [
        *table,
        *_together(f"{ours}/attention/key_value", attention, ("key", "value")),
        *_affine(f"{ours}/norm", f"{theirs}/LayerNorm_0", "scale"),
        *_affine(f"{ours}/mlp/up", f"{theirs}/MlpBlock_0/Dense_0"),
        *_affine(f"{ours}/mlp/down", f"{theirs}/MlpBlock_0/Dense_1"),
    ]


def _together(ours: str, theirs: str, names: tuple[str, ...]) -> list[Row]:
    """Several maps to heads as one of our maps."""
    return [
        Row(
            (f"{ours}/{part}",),
            tuple(f"{theirs}/{name}/{part}" for name in names),
            lambda *x: (np.stack(x, axis=-3),),
            lambda x: tuple(np.moveaxis(x, -3, 0)),
        )
        for part in ("kernel", "bias")
    ]


def _affine(ours: str, theirs: str, factor: str = "kernel") -> list[Row]:
    """Kernel (or a norm's scale) and bias, unchanged."""
    return [row for part in (factor, "bias") for row in same(f"{ours}/{part}", f"{theirs}/{part}")]
