"""Karlo beside the pipelines of diffusers: tests/golden/make_karlo.py."""

import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import GOLDEN, close, expected
from PIL import Image
from safetensors.numpy import load_file
from unet_parts import close_parts, run

from mmjax import unclip
from mmjax.models import karlo_sampling as karlo
from mmjax.models.systems import make_system
from mmjax.pretrained import load, save_pretrained
from mmjax.variables import abstract_variables
from mmjax.weights.families import karlo as family
from mmjax.weights.published import Published
from mmjax.weights.tensor_file import Files

PROMPTS = ["a red bus!", "two small dogs run over the grass, and a cup of tea"]
NETS = ("decoder", "super_res_first", "super_res_last")


@pytest.fixture(scope="module")
def texts():
    return load(GOLDEN / "karlo")


@pytest.fixture(scope="module")
def variation_folder(tmp_path_factory):
    """The folder of a UnCLIPImageVariationPipeline, with the parts that both have."""
    folder = tmp_path_factory.mktemp("karlo") / "variation"
    shutil.copytree(GOLDEN / "karlo_variation", folder)
    for part in family.PARTS:
        shutil.copytree(GOLDEN / "karlo" / part, folder / part)
    return folder


@pytest.fixture(scope="module")
def variations(variation_folder):
    return load(variation_folder)


def draws(want, stage):
    """The randomness of a stage of the pipeline; there is none in its last step."""
    noise = want[f"noise_{stage}"]
    noise = jnp.asarray(np.concatenate([noise, np.zeros_like(noise[:1])]))
    return karlo.Draws(jnp.asarray(want[f"start_{stage}"]), lambda step: noise[step])


def states(loaded, want, batch, guidance, prior_guidance=1.0):
    """Every state of the stages with the draws of the original, and what the decoder reads."""
    model = loaded.model

    def plan(stage):
        return draws(want, stage), len(want[f"states_{stage}"])

    @jax.jit
    def apply(given, batch):
        found, words = {}, karlo.read_texts(model, given, batch)
        if "image" in batch:
            embed = model.apply(given, {"image": batch["image"]})["image_embed"]
        else:
            at, steps = plan("prior")
            embed, found["states_prior"] = karlo.embeddings(
                model, given, words, at, steps, prior_guidance, steps
            )
        read = karlo.decoder_inputs(model, given, words, embed, guidance)
        at, steps = plan("decoder")
        small, found["states_decoder"] = karlo.small_images(
            model, given, words, embed, at, steps, guidance, steps
        )
        at, steps = plan("super_res")
        _, found["states_super_res"] = karlo.large_images(model, given, small, at, steps, steps)
        return found | {"condition": read["embedding"], "context": read["context"]}

    return jax.tree.map(np.asarray, apply(loaded.variables, batch))


def tokens(loaded, texts):
    words, mask, _ = loaded.tokenizer.rows(texts, loaded.text_length)
    return {"text": words, "text_mask": mask}


def check(found, want):
    """All states are those of the original, up to 1e-5 of their largest value."""
    image = np.clip(found["states_super_res"][-1] / 2 + 0.5, 0, 1)
    for name, x in {**found, "image": image}.items():
        theirs = want[name]
        if name in ("condition", "context") and len(theirs) > len(image):
            theirs = np.roll(theirs, len(image), axis=0)  # those without a condition come first
        close(x, theirs)


def test_every_state_of_images_of_texts(texts):
    want = expected("karlo")
    check(states(texts, want, tokens(texts, PROMPTS), 8.0, 4.0), want)


def test_every_state_of_variations_of_images(variations):
    want = expected("karlo_variation")
    image = np.stack([variations.image(x) for x in want["pixels"]])
    np.testing.assert_array_equal(image, want["pixels"])
    batch = tokens(variations, [""] * len(image)) | {"image": image}
    check(states(variations, want, batch, 1.0), want)


@pytest.mark.parametrize("net", NETS)
def test_the_networks_part_by_part(texts, net):
    every, named = expected("karlo"), {}
    want = {k.removeprefix(f"parts_{net}/"): x for k, x in every.items() if f"parts_{net}/" in k}
    if net == "decoder":
        batch = tokens(texts, ["", "", *PROMPTS])
        mask = np.pad(batch["text_mask"], ((0, 0), (3, 0)), constant_values=True)
        named = {"embedding": every["condition"], "context": every["context"]}
        named["context_mask"] = mask
    unet = texts.model.make_unet(net, parent=None)
    given = want["x"], want["time"].astype(np.float32)
    found, kept = run(unet, {"params": texts.params[net]}, *given, **named)
    close_parts(kept, want, 2, 1)
    close(found, want["part5"])


def files(folder):
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", ["texts", "variations"])
def test_a_saved_folder_is_that_of_the_original(kind, request, tmp_path):
    loaded, origin = request.getfixturevalue(kind), GOLDEN / "karlo"
    if kind == "variations":
        origin = request.getfixturevalue("variation_folder")
    save_pretrained(loaded, tmp_path / "saved")
    assert files(tmp_path / "saved") == files(origin) - {"expected.safetensors"}
    for name in files(tmp_path / "saved"):
        theirs, ours = origin / name, tmp_path / "saved" / name
        if name.endswith(".safetensors"):
            theirs, ours = load_file(theirs), load_file(ours)
            assert theirs.keys() == ours.keys()
            for key, want in theirs.items():
                np.testing.assert_array_equal(ours[key], want.astype(np.float32), err_msg=name)
        elif not name.startswith("tokenizer/"):
            theirs, ours = (json.loads(x.read_text()) for x in (theirs, ours))
            same = {k for k in ours if k in theirs and theirs[k] == ours[k]}
            # The library of text_proj, the ids of the tokenizer, and what has no influence.
            assert ours.keys() - same <= {"text_proj", "sample_size", "feature_extractor"} | {
                "pad_token_id",
                "attention_head_dim",
                "attn_norm_num_groups",
                "downsample_type",
                "upsample_type",
                "embedding_proj_dim",
            }, name
    again = load(tmp_path / "saved")
    assert again.config == loaded.config
    assert again.transform == loaded.transform
    for name, want in tokens(loaded, [*PROMPTS, ""]).items():
        np.testing.assert_array_equal(tokens(again, [*PROMPTS, ""])[name], want)


@pytest.mark.parametrize(
    ("file", "changed", "words"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionPipeline"}, "StableDiffusionPipeline"),
        ("model_index.json", {"prior": [None, None]}, "has the prior None"),
        ("decoder/config.json", {"class_embed_type": None}, "has class_embed_type None"),
        ("decoder/config.json", {"only_cross_attention": True}, "has only_cross_attention True"),
        ("decoder/config.json", {"cross_attention_dim": 11}, "has cross_attention_dim 11"),
        ("prior/config.json", {"num_embeddings": 8}, "has num_embeddings 8"),
        ("super_res_first/config.json", {"in_channels": 3}, "has in_channels 3"),
        ("super_res_first/config.json", {"sample_size": None}, "has sample_size None"),
        ("super_res_scheduler/scheduler_config.json", {"beta_schedule": "linear"}, "has beta_sch"),
        ("decoder_scheduler/scheduler_config.json", {"variance_type": "none"}, "has variance_type"),
        ("text_proj/config.json", {"time_embed_dim": 20}, "has time_embed_dim 20"),
        (
            "prior_scheduler/scheduler_config.json",
            {"clip_sample_range": -1},
            "clip_sample_range -1",
        ),
    ],
)
def test_what_is_not_a_karlo_is_refused(file, changed, words, tmp_path):
    folder = shutil.copytree(GOLDEN / "karlo", tmp_path / "karlo")
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | changed))
    with pytest.raises(ValueError, match=words) as refused:
        load(folder)
    assert str(folder) in str(refused.value)


def test_a_missing_part_is_named(tmp_path):
    folder = shutil.copytree(GOLDEN / "karlo", tmp_path / "karlo")
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(ValueError, match="tokenizer files in .*karlo/tokenizer' are missing"):
        load(folder)
    shutil.rmtree(folder / "super_res_last")
    with pytest.raises(ValueError, match="no 'config.json' in '.*super_res_last'"):
        load(folder)


def test_the_command(texts, variations, variation_folder, tmp_path, monkeypatch):
    names = {"prior": "", "seed": 0, "count": 2, "steps": 2, "super_res_steps": 2}
    names |= {"guidance": None, "prior_guidance": None, "image": [], "prompt": []}
    shapes = []

    def command(loaded, **given):
        args = {"decoder": "karlo", "out": str(tmp_path / "out.png"), **names, **given}
        monkeypatch.setattr(unclip, "ARGS", types.SimpleNamespace(**args), raising=False)
        monkeypatch.setattr(unclip.pretrained, "load", lambda path: loaded)
        unclip.main()
        shapes.append(np.asarray(Image.open(args["out"])).shape)

    command(texts, prompt=PROMPTS)
    assert shapes == [(22, 22, 3)]
    with pytest.raises(ValueError, match="either prompts or one image"):
        command(texts, prompt=PROMPTS, prior="runs/prior")
    with pytest.raises(ValueError, match="sample.guidance is nan: use a finite number"):
        command(texts, prompt=PROMPTS, guidance=float("nan"))
    with pytest.raises(ValueError, match="has no prior"):
        command(variations, prompt=PROMPTS)
    Image.fromarray(np.zeros((12, 10, 3), np.uint8)).save(tmp_path / "in.png")
    with pytest.raises(ValueError, match="takes no images"):
        command(texts, image=[str(tmp_path / "in.png")])


BLOCKS = {"block_out_channels": [320, 640, 960, 1280], "layers_per_block": 3}
DECODER = {
    **BLOCKS,
    "_class_name": "UNet2DConditionModel",
    "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
    "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "cross_attention_dim": 1536,
    "attention_head_dim": 64,
    "class_embed_type": "identity",
    "resnet_time_scale_shift": "scale_shift",
    "in_channels": 3,
    "out_channels": 6,
    "sample_size": 64,
}
SUPER_RES = {
    **BLOCKS,
    "_class_name": "UNet2DModel",
    "down_block_types": ["ResnetDownsampleBlock2D"] * 4,
    "up_block_types": ["ResnetUpsampleBlock2D"] * 4,
    "add_attention": False,
    "in_channels": 6,
    "out_channels": 3,
    "sample_size": 256,
}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}


def test_the_published_sizes(tmp_path):
    """Settings: scripts/convert_kakao_brain_unclip_to_diffusers.py of diffusers. Counts: of its
    classes with these settings; the prior's include the mean and deviation of embeddings."""
    config = {
        "_class_name": "UnCLIPPipeline",
        "prior": {},
        "decoder": DECODER,
        "super_res_first": SUPER_RES,
        "super_res_last": {**SUPER_RES, "sample_size": None},
        "text_encoder": {**TEXT, "projection_dim": 768},
        "text_proj": {},
        "prior_scheduler": {"prediction_type": "sample", "clip_sample_range": 5.0},
        "decoder_scheduler": {"variance_type": "learned_range"},
        "super_res_scheduler": {},
    }
    model = family.model_config(Published(tmp_path, config, None, Files({})))
    system = make_system({"model": model})
    found = abstract_variables(system.model, system.spec)
    names = {"text_encoder": ("text", "text_proj"), "text_proj": ("condition",)}
    counts = {}
    for part in ("prior", "decoder", "text_proj", "text_encoder", "super_res_first"):
        trees = [found["params"][x] for x in names.get(part, (part,))]
        trees += [found["buffers"][part]] if part in found["buffers"] else []
        counts[part] = sum(x.size for x in jax.tree.leaves(trees))
    assert counts == {
        "prior": 1_022_030_080,
        "decoder": 885_439_686,
        "text_proj": 7_878_400,
        "text_encoder": 123_650_304,
        "super_res_first": 691_579_523,
    }
