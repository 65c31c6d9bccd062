"""EfficientNet-Lite beside timm: tests/golden/make_efficientnet_lite.py; and its real weights."""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from named_draws import Drawn
from parity import GOLDEN, close, expected
from safetensors.numpy import load_file, save_file

from mmjax.data.builders.imagenet_classes import imagenet_classes
from mmjax.data.cache import data_root
from mmjax.models.efficientnet import LITES, EfficientNet, lite_fields
from mmjax.pretrained import describe, load, save_pretrained
from mmjax.variables import abstract_variables
from mmjax.weights.families import efficientnet_lite
from mmjax.weights.torch_file import TorchFile

CONFIG = json.loads((GOLDEN / "efficientnet_lite" / "config.json").read_text())


@pytest.fixture(scope="module")
def drawn():
    """Tensors of Lite0 with 7 classes, by timm's names."""
    model = EfficientNet(**lite_fields("lite0"), num_classes=7)
    image = {"image": jax.ShapeDtypeStruct((1, 32, 32, 3), np.uint8)}
    params = abstract_variables(model, image)["params"]
    ours = {"/".join(k.key for k in path): x for path, x in jax.tree.leaves_with_path(params)}
    found = Drawn(efficientnet_lite.rows(model), ours)
    return {name: found.read(name) for name in found.shapes}


@pytest.fixture(scope="module")
def folder(drawn, tmp_path_factory):
    """A folder as timm saves one."""
    out = tmp_path_factory.mktemp("lite")
    save_file(drawn, out / "model.safetensors")
    shutil.copy(GOLDEN / "efficientnet_lite" / "config.json", out)
    return out


@pytest.fixture(scope="module")
def loaded(folder):
    return load(folder)


def test_layer_by_layer_and_at_the_end(loaded):
    want = expected("efficientnet_lite")
    layers = ["stem", *(f"block{i}" for i in range(16)), "top"]

    def run(params, image):
        return loaded.model.apply(
            {"params": params},
            {"image": image},
            capture_intermediates=lambda module, _: module.name in layers,
            mutable=["intermediates"],
        )

    for name in ("odd", "small"):
        outputs, kept = jax.jit(run)(loaded.params, want[f"{name}_image"])
        close(outputs["image_features"], want[f"{name}_features"])
        close(outputs["logits"], want[f"{name}_logits"])
        if name == "odd":
            for i, layer in enumerate(layers):
                close(kept["intermediates"][layer]["__call__"][0][:1], want[f"layer{i}"])


def test_the_images_are_prepared_as_by_timm(loaded):
    assert loaded.transform == (
        "decode | resize_short(256, 'bicubic') | center_crop((224, 224), 'even')"
    )
    assert loaded.config["image_mean"] == (0.5,) * 3  # as timm's config says; 127 / 255 without it
    assert loaded.config["num_classes"] == 7


def test_a_saved_folder_is_what_timm_wrote(loaded, drawn, tmp_path):
    names = tuple("abcdefg")
    named = dataclasses.replace(loaded, class_names=names)
    save_pretrained(named, tmp_path / "saved")
    tensors = load_file(tmp_path / "saved" / "model.safetensors")
    counts = {name for name in tensors if name.endswith("num_batches_tracked")}
    assert tensors.keys() - counts == drawn.keys() and len(counts) == 49
    for name, want in drawn.items():
        np.testing.assert_array_equal(tensors[name], want)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    for part, wanted in ((config, CONFIG), (config["pretrained_cfg"], CONFIG["pretrained_cfg"])):
        both = part.keys() & wanted.keys() - {"pretrained_cfg"}
        assert {k: part[k] for k in both} == {k: wanted[k] for k in both}
    again = load(tmp_path / "saved")
    assert again.config == loaded.config and again.transform == loaded.transform
    assert again.class_names == names


@pytest.mark.parametrize("size", [c.size for c in LITES.values()])
def test_the_crop_comes_back_from_timm_s_fraction(loaded, size, tmp_path):
    transform = (
        f"decode | resize_short({size + 32}, 'bicubic') | center_crop(({size}, {size}), 'even')"
    )
    model = dataclasses.replace(loaded.model, image_size=size)
    config = efficientnet_lite.published_config(model)
    other = dataclasses.replace(loaded, model=model, transform=transform)
    config = efficientnet_lite.complete_config(config, other) | {"model_type": "any"}
    found = efficientnet_lite.Published(tmp_path, config, None, None)
    assert efficientnet_lite.transform(found) == transform


def test_what_no_lite_has_is_refused(loaded, tmp_path):
    wide = dataclasses.replace(loaded.model, activation="silu", head=None)
    with pytest.raises(ValueError, match=r"no activation 'silu' \(not 'relu6'\), no head None"):
        efficientnet_lite.published_config(wide)
    squashed = dataclasses.replace(loaded, transform="decode | resize((224, 224))")
    with pytest.raises(ValueError, match="timm cannot prepare images by 'decode . resize"):
        save_pretrained(squashed, tmp_path / "out")
    for change, message in (
        ({"architecture": "tf_efficientnet_lite9"}, "has the architecture 'tf_efficientnet_lite9'"),
        ({"architecture": "resnet50"}, "a model of type 'resnet'"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, "has crop_mode 'border'"),
        ({"pretrained_cfg": {"input_size": [3, 224]}}, r"has input_size \[224\]"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(CONFIG | change))
        save_file({"classifier.weight": np.zeros((7, 1280))}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=message):
            describe(tmp_path)


def names_of_the_packages(depths):
    """Names in the order of their files, and whether a block has an expansion."""
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def normed(convolution, norm):
        return [f"{convolution}.weight", *(f"{norm}.{part}" for part in parts)]

    names, count = normed("_conv_stem", "_bn0"), 0
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            block = f"_blocks.{count}."
            names += normed(f"{block}_expand_conv", f"{block}_bn0") if stage else []
            names += normed(f"{block}_depthwise_conv", f"{block}_bn1")
            names += normed(f"{block}_project_conv", f"{block}_bn2")
            count += 1
    return [*names, *normed("_conv_head", "_bn1"), "_fc.weight", "_fc.bias"]


def test_names_of_the_packages_are_mapped_to_those_of_timm(drawn):
    depths = [x["depth"] for x in lite_fields("lite0")["stages"]]
    found = [
        efficientnet_lite._timm_name(name, depths)
        for name in names_of_the_packages(depths)
        if not name.endswith("num_batches_tracked")
    ]
    assert len(set(found)) == len(found) and set(found) == drawn.keys()


def cached(variant):
    """The file of a package, if it was downloaded before."""
    member = efficientnet_lite.PACKAGES[variant]
    package = f"{member.package.name}-{member.package.version}"
    path = data_root() / "packages" / package / member.path
    if not path.is_file():
        pytest.skip(f"the weights of {package} are not downloaded")
    return path


@pytest.mark.parametrize("variant", efficientnet_lite.PACKAGES)
def test_the_files_of_the_packages_have_those_names_in_that_order(variant):
    file = TorchFile(cached(variant))
    depths = [x["depth"] for x in lite_fields(variant)["stages"]]
    assert list(file.shapes) == names_of_the_packages(depths)


# The usual name of the class, as Lite0 and Lite2 both have it first.
PHOTOGRAPHS = {
    ("skimage", "data/coffee.png"): {"espresso"},
    ("skimage", "data/camera.png"): {"tripod"},
    ("skimage", "data/chelsea.png"): {"tabby", "tiger cat", "Egyptian cat"},
    ("skimage", "data/motorcycle_left.png"): {"moped"},
    ("sklearn", "datasets/images/china.jpg"): {"palace"},
}


@pytest.mark.parametrize("variant", efficientnet_lite.PACKAGES)
def test_real_weights_name_real_photographs(variant):
    model = load(cached(variant))
    folders = {}
    for package in {package for package, _ in PHOTOGRAPHS}:
        found = importlib.util.find_spec(package)
        if found is None:
            pytest.skip(f"{package} is not installed, whose photographs are needed")
        folders[package] = Path(found.origin).parent
    names = [c.names[0] for c in imagenet_classes()]
    run = jax.jit(lambda params, image: model.model.apply({"params": params}, {"image": image}))
    for (package, path), allowed in PHOTOGRAPHS.items():
        image = model.image((folders[package] / path).read_bytes())
        logits = run(model.params, image[None])["logits"][0]
        assert names[int(logits.argmax())] in allowed, path
