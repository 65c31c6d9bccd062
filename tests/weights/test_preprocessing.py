"""Our chains of transforms beside transformers' image processors: make_preprocessing.py.

Those of Pillow are matched to the last bit. Those that resize tensors with torchvision, which
transformers takes where that is installed, differ from both by one level of 255 at most, and by a
quarter of a level in the mean of the image with the largest difference.
"""

import json
import shutil

import numpy as np
import pytest
from parity import GOLDEN
from safetensors.numpy import load_file

from mmjax.data.transforms import parse as transforms
from mmjax.models.vit import ViT
from mmjax.pretrained import describe, load
from mmjax.weights import image_defaults, image_processor
from mmjax.weights.family import FAMILIES
from mmjax.weights.published import Published

FOLDER = GOLDEN / "preprocessing"
PICTURES = sorted(path.name for path in FOLDER.glob("*.*g"))
KINDS = sorted(path.parent.name for path in FOLDER.glob("*/preprocessor_config.json"))


@pytest.fixture(scope="module")
def expected():
    return load_file(FOLDER / "expected.safetensors")


def chain(kind):
    """The chain that a family's file makes of a preprocessor_config.json."""
    settings = json.loads((FOLDER / kind / "preprocessor_config.json").read_text())
    return complete(kind.split("_")[0], settings).transform


def complete(model_type, settings, **config):
    """What a family's file makes of image settings."""
    found = Published(FOLDER, {"model_type": model_type, **config}, settings, None)
    source = FAMILIES[model_type].image_source(found)
    return image_processor.read(image_processor.complete(found, source)[0].preprocessor)


def prepared(kind, picture):
    prepare = transforms.parse(chain(kind))
    example = {"image": (FOLDER / picture).read_bytes()}
    return prepare(example, np.random.default_rng(0))["image"]


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_the_image_processors(kind, expected):
    assert len(PICTURES) == 7
    for picture in PICTURES:
        ours = prepared(kind, picture).astype(int)
        np.testing.assert_array_equal(ours, expected[f"{kind}/pil/{picture}"], picture)
        far = np.abs(ours - expected[f"{kind}/torchvision/{picture}"])
        assert far.mean() < 1, picture  # 1/255, as pixels here are 0 to 255


@pytest.mark.parametrize("kind", KINDS)
def test_settings_written_give_the_same_chain(kind):
    steps = chain(kind)
    tower = ViT(image_size=32, image_mean=(0.1, 0.2, 0.3), image_std=(0.4, 0.5, 0.6))
    written = image_processor.write(tower, steps, "AnyImageProcessor")
    again = image_processor.read(written)
    assert again == (steps, tower.image_mean, tower.image_std)


def test_what_the_published_form_cannot_say_is_refused():
    with pytest.raises(ValueError, match="without antialiasing.*another transform"):
        steps = "decode | resize(8, antialias=False)"
        image_processor.write(ViT(image_size=8), steps, "ViTImageProcessor")
    with pytest.raises(ValueError, match="'longest_edge': 9.*can be read"):
        image_processor.read({"size": {"longest_edge": 9}, "resample": 3})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"image_processor_type": "ConvNextImageProcessor"},
            "is a 'ConvNextImageProcessor'; these",
        ),
        ({"image_processor_type": "CLIPImageProcesor"}, "Did you mean 'CLIPImageProcessor'"),
        ({"image_processor_type": 5}, "is a '5'; these can be read"),
        ({"size": "24"}, "has size '24'"),
        ({"crop_size": {"shortest_edge": 9}}, "has crop_size {'shortest_edge': 9}"),
        ({"resample": 7}, "has resample 7; 0 to 5 can be read"),
        ({"resample": "bicubic"}, "has resample 'bicubic'"),
        ({"image_mean": [0.5, 0.5]}, r"has image_mean \[0.5, 0.5\]; it needs one number or three"),
        ({"do_pad": True}, "has do_pad True, which cannot be read"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(settings, words):
    with pytest.raises(ValueError, match=words) as error:
        complete("clip", settings)
    assert "\n" not in str(error.value)


def test_what_a_file_leaves_out_is_the_default_of_its_class():
    """Of transformers 5.23: a folder's family is not what counts."""
    found = complete("dinov2", {"image_processor_type": "BitImageProcessor"})
    crop = "resize_short(224, 'bicubic') | center_crop((224, 224))"
    assert found == (f"decode | {crop}", image_defaults.CLIP_MEAN, image_defaults.CLIP_STD)
    found = complete("vit", {"image_processor_type": "CLIPImageProcessorFast", "image_mean": 0.5})
    assert found.transform == f"decode | {crop}" and found.mean == (0.5, 0.5, 0.5)
    older = complete("vit", {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224})
    assert older.transform == f"decode | {crop}"
    assert complete("clip", {"do_center_crop": False}).transform.endswith("short(224, 'bicubic')")


PROCESSORS = GOLDEN / "transformers5"


def folder_with(tmp_path, kind, *files):
    """A copy of a golden folder with these files of image settings (path, its name there)."""
    folder = shutil.copytree(GOLDEN / kind, tmp_path / kind)
    (folder / "preprocessor_config.json").unlink()
    for path, name in files:
        shutil.copy(path, folder / name)
    return folder


@pytest.mark.parametrize("kind", ["align", "chinese_clip", "clip", "siglip"])
def test_a_processor_saved_by_transformers_5_has_one_file(tmp_path, kind):
    """Pixels are those of the image processor that wrote it: make_transformers5.py."""
    want = load_file(PROCESSORS / "processed.safetensors")
    file = PROCESSORS / kind / "processor_config.json"
    loaded = describe(folder_with(tmp_path, kind, (file, file.name)))
    image = loaded.config["image"]
    found = loaded.image(want["image"]) / 255 - np.asarray(image["image_mean"])
    found = (found / np.asarray(image["image_std"])).transpose(2, 0, 1)
    np.testing.assert_allclose(found, want[kind], atol=1e-5)


def test_the_processor_s_file_comes_first_where_it_has_image_settings(tmp_path):
    """As in transformers 5.23, image_processing_base.py, get_image_processor_dict."""
    new, old = tmp_path / "new.json", tmp_path / "old.json"
    old.write_text(json.dumps({"size": {"shortest_edge": 16}, "crop_size": 16}))
    names = ("processor_config.json", "preprocessor_config.json")
    for i, (content, size) in enumerate(
        (
            ({"image_processor": {"size": {"shortest_edge": 8}, "crop_size": 8}}, 8),
            ({"image_processor": None}, 16),
            ({"processor_class": "CLIPProcessor"}, 16),
        )
    ):
        new.write_text(json.dumps(content))
        folder = folder_with(tmp_path / str(i), "clip", *zip((new, old), names))
        crop = f"resize_short({size}, 'bicubic') | center_crop(({size}, {size}))"
        assert describe(folder).transform == f"decode | {crop}"


def test_without_image_settings_the_size_is_that_of_the_model_and_the_report_says_so(tmp_path):
    loaded = load(folder_with(tmp_path, "clip"))
    assert loaded.transform == "decode | resize_short(24, 'bicubic') | center_crop((24, 24))"
    assert loaded.report.splitlines()[-1] == (
        "  note    no processor_config.json and no preprocessor_config.json: 24x24 from "
        "config.json's image_size, the rest as usual for clip"
    )
    assert "  note  " not in load(GOLDEN / "clip").report
    assert complete("vit", None, image_size=[14, 7]).transform.endswith("((14, 7), 'bilinear')")
    cropped = complete("dinov2", None, image_size=448)
    assert cropped.transform.endswith("short(512, 'bicubic') | center_crop((448, 448))")
    assert cropped.mean == (0.485, 0.456, 0.406)
    # cn_clip/clip/utils.py, image_transform: whole images, squashed.
    squashed = complete("chinese_clip", None, vision_config={"image_size": 336})
    assert squashed.transform == "decode | resize((336, 336), 'bicubic')"
    # transformers' convert_align_tf_to_hf.py, get_processor: 346 and 289 pixels in [-1, 1].
    align = complete("align", None, vision_config={"image_size": 289})
    assert align.transform == "decode | resize((346, 346), 'bilinear') | center_crop((289, 289))"
    np.testing.assert_allclose([align.mean, align.std], 0.5)
    with pytest.raises(ValueError, match=r"neither processor_config.json nor .* no image_size"):
        complete("vit", None)
    with pytest.raises(ValueError, match="its config.json no vision_config.image_size"):
        complete("clip", None, image_size=24)


def test_another_rescaling_is_one_map_of_the_pixels():
    settings = {"size": 8, "resample": 3, "rescale_factor": 0.5, "rescale_offset": True}
    given = {"image_mean": (0.1, 0.2, 0.3), "image_std": (2.0, 4.0, 5.0)}
    found = image_processor.read(settings | given)
    for x in (0, 90, 255):
        want = (x * 0.5 - 1 - np.array(given["image_mean"])) / given["image_std"]
        np.testing.assert_allclose((x / 255 - np.array(found.mean)) / found.std, want, rtol=1e-12)
