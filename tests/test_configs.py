"""Every file in configs/: its full size in shapes, and one step at toy size on 1 and 8 devices."""

import dataclasses
import functools
import re
import types
from pathlib import Path

import hand_counts
import jax
import numpy as np
import pytest
import toy
from digits import wav

from mmjax import config as configs
from mmjax.batch import check as check_batch
from mmjax.data.transforms.parse import parse
from mmjax.evals.evaluators import make_evaluators
from mmjax.models.systems import make_system
from mmjax.plan import chips, estimate
from mmjax.run import experiment
from mmjax.run.evaluation import Runner
from mmjax.system import variables

FILES = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))
# The model of a fine-tuning is the one that it is given: see test_finetune.py.
NAMES = [f.stem for f in FILES if not f.stem.startswith("finetune_")]


def load(name, *overrides):
    return configs.load(f"configs/{name}.py", overrides)


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    root = Path(__file__).parent.parent
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root))  # as `python -m` does; configs build on each other


@functools.cache
def full_size(name):
    """The experiment on 8 devices, in shapes alone."""
    sizes = {"data": 4, "fsdp": 2} if load(name).batch_size % 8 == 0 else {"fsdp": 2, "tensor": 2}
    config = load(name, *(f"mesh.{axis}={size}" for axis, size in sizes.items()))
    return config, experiment.build(config, None)


@pytest.mark.parametrize("name", NAMES)
def test_full_size(name):
    config, run = full_size(name)
    assert config.name == name
    size = sum(int(np.prod(p.shape)) for p in jax.tree.leaves(run.params))
    assert size == hand_counts.count_by_hand(name)
    assert all(p.dtype == np.float32 for p in jax.tree.leaves(run.params))
    outputs = jax.eval_shape(
        run.model.apply,
        variables(run.params, run.state.memory),
        {k: jax.ShapeDtypeStruct((8, *s.shape[1:]), s.dtype) for k, s in run.spec.items()},
    )
    if config.model.name in ("albef", "aligner", "blip", "clip", "coca", "flava", "noised_clip"):
        assert outputs["image_embed"].shape == (8, config.model.embed_dim)
        assert outputs["text_embed"].shape == (8, config.model.embed_dim)
    if config.model.name in ("audioclip", "clap"):
        assert outputs["audio_embed"].shape == outputs["text_embed"].shape
    elif config.model.name == "videobert":
        frames, codes = config.model.frames, config.model.codes
        assert outputs["video_prediction"].shape == (8, frames, codes)
    elif config.model.name in ("diffusion", "glide", "unclip"):
        assert outputs["prediction"].shape == (8, *run.model.shape)
    elif config.model.name == "video_vq":
        assert outputs["reconstruction"].shape == (8, *run.spec["video"].shape[1:])
    elif config.model.name == "image_tokenizer":
        assert outputs["reconstruction"].shape == (8, *run.spec["image"].shape[1:])
    elif config.model.name == "dalle":
        count = np.prod(run.model.tokenizer(parent=None).grid)
        assert outputs["image_logits"].shape == (8, count, config.model.image_tokenizer.codes)
    elif "decoder" in config.model.get("text", {}) or config.model.name == "blip":
        text = config.model.text
        assert outputs["text_logits"].shape == (8, text.length, text.vocab_size)
    elif config.model.name == "albef":
        assert outputs["match_logits"].shape == (8, 2)
    elif config.model.get("words"):
        assert outputs["text_prediction"].shape[1:] == (*run.spec["text"].shape[1:], 30_522)
        assert outputs["match_logits"].shape == (8, 2)
    elif config.model.name == "owlvit":
        patch = run.model.image_tower(parent=None).sizes["patch_size"]
        tokens = (config.model.image.image_size[0] // patch) ** 2
        assert outputs["query_logits"].shape == (8, tokens, config.model.queries)
        assert outputs["pred_boxes"].shape == (8, tokens, 4)
    elif config.model.name == "sam":
        assert outputs["click_iou"].shape == (8, config.model.objects, run.model.test_clicks)
    elif config.model.name == "video_vit" and "decoder" in config.model:
        assert outputs["video_features"].shape == (8, config.model.width)  # nothing is masked
    elif config.model.name not in (
        "aligner",
        "clip",
        "diffusion_prior",
        "flava",
        "noised_clip",
    ):
        classes = config.model.get("num_classes", config.model.get("answers", 2))
        assert outputs["logits"].shape == (8, classes)
        # A source with more classes is refused before training.
        names = [str(i) for i in range(classes + 1)]
        run.system.check_source(types.SimpleNamespace(name="x", class_names=names[1:]))
        run.system.check_source(types.SimpleNamespace(name="x", class_names=None))
        with pytest.raises(
            ValueError, match=f"has {classes + 1} .*'{classes}' .*: set config.model"
        ):
            run.system.check_source(types.SimpleNamespace(name="x", class_names=names))
    others = (
        "ctc_frames",
        "video_codes",
        "video_code_mask",
        "image_codes",
        "negatives_exist",
        "image_tokens_mask",
    )
    floats = {k: o for k, o in outputs.items() if k not in others}
    assert all(o.dtype == np.float32 for o in floats.values())
    assert np.isfinite(float(run.schedule(config.total_steps - 1)))


@pytest.mark.parametrize("name", NAMES)
def test_data_fit_the_model(name):
    """Sizes that the transform writes are those of the model."""
    config, run = full_size(name)
    # What is cached is the start of the transform.
    parts = config.data.train.get("parts", {}).values()
    transform = " | ".join(f"{x.get('cached_transform', '')} | {x.transform}" for x in parts)
    transform += f"{config.data.cached_transform} | {config.data.transform}"
    model = config.model.get("main", config.model)
    if model.get("given") or config.model.get("name") == "aligner":
        assert transform.startswith(" | choose_features")
        assert model.get("text_words", False) == ("tokenize" in transform)
        assert "tokenize" not in transform or f"tokenize({model.text.length})" in transform
        return
    if config.model.name == "diffusion":
        assert transform.strip(" |") in ("label", "decode | label")  # nothing is resized
        return
    if config.model.name in ("glide", "unclip"):
        chains = [transform, *(section.transform for section in config.evals.values())]
        size, words = run.spec["image"].shape[1], f"tokenize({model.text.length})"
        for chain in chains:
            assert words in chain
            assert f"crop({size})" in chain or f"resize({size})" in chain
        return
    if config.model.name == "relation_network":  # the images have their size from the start
        sections = (config.data, *config.evals.values())
        words = f"first_caption | tokenize({model.length}) | label"
        assert all(x.transform == words for x in sections)
        return
    if config.model.name == "language_model":
        sections = (config.data, *config.evals.values())
        assert all(x.transform == f"running_text({model.text.length})" for x in sections)
        return
    if config.model.name == "whisper":
        heard = [f"{config.data.cached_transform} | {config.data.transform}"]
        heard += [section.transform for section in config.evals.values()]
        assert all(f"waveform({model.audio.length / 50:g})" in x for x in heard)
        assert all(f"whisper_mel({model.audio.mels})" in x for x in heard)
        assert f"transcript({model.text.length})" in heard[0]
        return
    if config.model.name == "avsr":
        clip = (
            f"decode_video({model.frames}, {model.video['size'][0]}",
            f"speech_mel({4 * model.frames}, {model.audio.mels},",
        )
        assert all(step in transform for step in (*clip, f"tokenize({model.text.length})"))
        assert all(step in e.transform for e in config.evals.values() for step in clip)
        return
    if config.model.name in ("video_vit", "video_vq", "videobert"):
        chains = [config.data.transform, *(e.transform for e in config.evals.values())]
        tokens = f"tokenize({model.text.length})" if "text" in model else ""
        video = {"key": "x", "video": np.zeros((40, 9, 9, 3), np.uint8), "captions": ["a"]}
        for chain in chains:
            assert tokens in chain
            steps = chain.split(" | video_tokens")[0].removesuffix(" | label")
            found = parse(steps)(video, np.random.default_rng(0))["video"]
            clip = 2 if "clip=2" in chain else 1
            assert len(found) == clip * model.frames
            if config.model.name != "videobert":
                assert found[None].shape[1:] == run.spec["video"].shape[1:]
        return
    if config.model.name in ("audio_classifier", "clap"):
        train = f"{config.data.cached_transform} | {config.data.transform}"
        evals = [section.transform for section in config.evals.values()]
        words = f" | tokenize({model.text.length})" if "text" in model else ""
        assert words in train
        sound = wav(np.random.default_rng(0).integers(-999, 999, 9000))
        read = {k: s for k, s in run.spec.items() if k[:4] != "text" and k != "example_id"}
        for chain in (train.removesuffix(words), *evals):
            example = {"audio": sound, "label": 1, "labels": [1, 3], "captions": ["a"]}
            found = parse(chain.lstrip(" |"))(example, np.random.default_rng(0))
            check_batch({k: found[k][None] for k in read}, read)
        return
    if model.get("image", {}).get("kind") == "naflex":
        tower = run.model.image_tower(parent=None)
        budgets = (*config.data.train.parts.values(), *config.evals.values())
        chains = [section.transform for section in budgets]
        found = [re.search(r"patches\((\d+), (\d+)\)", chain).groups() for chain in chains]
        assert {int(patch) for _, patch in found} == {tower.sizes["patch_size"]}
        assert max(int(n) for n, _ in found) == tower.max_patches
        assert f"tokenize({model.text.length}" in transform
        return
    image = model.get("image_tokenizer", model.get("image", model))
    image = image.get("image", image)  # of frames
    size = np.unique(image.image_size).item()
    steps = ("resize", "resize_between", "random_resized_crop", "crop", "pad_corner")
    steps += ("resize_short", "tiles") if config.model.name == "llava" else ()
    assert any(f"{step}({size}" in transform for step in steps)
    words = f"tokenize({model.text.length}" if "text" in model else ""
    if config.data.batch_transform.startswith("interleave"):
        words = f"interleave({config.model.max_images}, {model.text.length}, "
    if config.model.name == "llava":
        words = f"converse({model.text.length}, {model.image_token}, {run.model.image_length}"
    if config.model.name == "owlvit":
        words = f"regions({model.boxes}) | name_queries({model.queries}, {model.text.length}"
    assert words in f"{transform} | {config.data.batch_transform}"
    sound = ""
    if config.model.name == "audioclip":  # two seconds are 198 frames of Kaldi's filter bank
        ast = model.audio.get("kind") == "ast"
        sound = "waveform(2) | kaldi_fbank(198, 64)" if ast else "waveform(5, 44100)"
        assert run.spec["audio" if ast else "waveform"].shape[1:] == (
            (198, 64) if ast else (5 * 44_100,)
        )
    elif name.endswith("stamps"):
        sound = f"kaldi_fbank({model.audio.frames}, {model.audio.mels}"
    elif "audio" in model:
        sound = f"log_mel({model.audio.frames}, {model.audio.mels}"
    assert sound in transform
    for section in config.evals.values():
        # Written digits have their size from the start.
        resized = any(f"{step}({size}" in section.transform for step in (*steps[:2], "pad_corner"))
        assert resized or name.endswith("digits")
        if config.model.name == "multimodal":
            assert sound in section.transform and words in section.transform
    assert set(config.validation) <= set(config.evals)


@pytest.mark.parametrize("name", NAMES)
def test_its_evaluators_can_be_made(name, tmp_path):
    config, run = full_size(name)
    tokenizer = types.SimpleNamespace(bos_id=0, eos_id=1, end_ids=(1,), pad_id=0, vocab_size=2)
    tokenizer.token_id = lambda token: None
    tokenizer.pieces = lambda text: (list(text.encode()), [])
    run = dataclasses.replace(run, tokenizer=tokenizer)
    runner = Runner(run, tmp_path, lambda *args: None)
    assert set(make_evaluators(config.evals, runner)) == set(config.evals)


def test_one_vocabulary_size_sets_tokenizer_and_model():
    config = load("clip_emoji", "tokenizer.vocab_size=512")
    assert config.model.text.vocab_size == 512


def test_docstrings_say_the_command_and_the_expected_result():
    for file in FILES:
        doc = file.read_text().split('"""')[1]
        assert f"--config=configs/{file.name}" in doc
        assert any(word in doc for word in ("Expected", "Published", "expect")), file


@pytest.mark.parametrize("name", NAMES)
def test_a_misspelt_setting_names_the_nearest(name):
    config = load(name)
    with config.unlocked():
        config.model.embd_dim = 1
    with pytest.raises(ValueError, match=r"config.model.embd_dim.*(Did you mean|It takes)"):
        make_system(config)


# ---- one step at toy size

# At toy size these differ from others in numbers alone.
SAME = ("clip_b16_laion2b", "clip_b32_laion400m", "clip_l14", "clip_openclipart", "siglip_emoji")
SAME += (
    "ast_audioset",
    "avsr_lrs3",
    "curriculum_digits",
    "curriculum_stamps",
    "dalle2_decoder_3_5b",
    "dalle2_prior",
    "dalle_12b",
    "glide_3_5b",
    "imbalanced_digits",
    "sam_vit_b_sa1b",
    "sam_vit_h_sa1b",
    "siglip2_naflex_b16",
)
SAME += (
    "llava_1_5_7b_projector",
    "llava_boards",
    "nanovlm_222m",
    "smolvlm_256m",
    "videobert",
    "whisper_base",
    "whisper_small",
    "whisper_tiny",
)


def one_step(name, mesh=None, dtype="float32", **loss):
    """The scalars of one update, and whether the parameters moved as they should."""
    config = toy.shrink(load(name), dtype)
    with config.unlocked():
        config.loss.update(loss)
    run = toy.build(config, mesh)
    state = toy.drawn(run)
    before = jax.tree.map(np.asarray, state.params)
    state, history = toy.take_steps(run, state, [toy.batch(config)])
    assert bool(state.finite)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != np.asarray(b))), before, state.params)
    return history[0], moved, jax.tree.map(np.asarray, state.params)


@functools.cache
def on_one_device(name):
    return one_step(name)


@pytest.mark.parametrize("name", sorted({*NAMES} - {*SAME}))
def test_a_step_is_finite_and_moves_what_it_should(name):
    scalars, moved, _ = on_one_device(name)
    assert all(np.isfinite(v) for v in scalars.values())
    assert scalars["grad_norm"] > 0
    for path, did in jax.tree_util.tree_flatten_with_path(moved)[0]:
        where = jax.tree_util.keystr(path, simple=True, separator="/")
        locked = name == "lit_b16" and where.startswith("image/")
        locked |= any(re.fullmatch(p, where) for p in load(name).optim.get("freeze", ()))
        if re.fullmatch(r"audio/attend\d/(depth|point)/bias", where):
            continue  # a batch norm of the batch follows: its gradient is zero but for rounding
        # Without debiasing no loss reaches the gate, and its bias does not decay.
        locked |= where == "mixin_gate/bias"
        assert did is not locked, where


@pytest.mark.parametrize("name", sorted({*NAMES} - {*SAME}))
def test_its_step_can_be_planned(name):
    assert estimate.model_flops(toy.shrink(load(name)), chips.parse("cpu:8")) > 0


# On data=4,fsdp=2 one of each structure.
STRUCTURES = (
    "ast_esc10",
    "clip_emoji",
    "naflex_emoji",
    "siglip_b16",
    "lit_b16",
    "vit_cifar10",
    "fusion_digits",
)
STRUCTURES += ("fusion_digits",)
STRUCTURES += ("albef_14m", "avsr_digits", "blip_b16_129m", "coca_emoji", "flamingo_emoji")
# Another config of the system is more than these: those of ALBEF and BLIP have a queue.
LESS = ("albef_emoji", "blip_emoji", "cct_cifar10", "clap_htsat", "flava_pmd")
# Parameters that change by 1e-7 change its gradient's norm by up to 3e-4: batch norms of few rows.
LESS += ("audioclip",)


@pytest.mark.parametrize("name", sorted({*NAMES} - {*SAME, *LESS}))
def test_the_step_on_8_devices_is_that_on_one(name):
    want, _, _ = on_one_device(name)
    got, _, _ = one_step(name, toy.MESHES["data=4,fsdp=2" if name in STRUCTURES else "data=8"])
    assert got.keys() == want.keys()
    for k in want:
        np.testing.assert_allclose(got[k], want[k], rtol=1e-5, atol=1e-6, err_msg=k)


@pytest.mark.parametrize("name", ["clip_emoji", "siglip_b16"])  # with duplicates; sigmoid
def test_the_step_with_the_ring_loss_is_that_on_one_device(name):
    want, _, _ = on_one_device(name)
    ring = {"implementation": "ring", "chunk_size": 3}
    got, _, _ = one_step(name, toy.MESHES["data=2,fsdp=2,tensor=2"], **ring)
    assert got.keys() == want.keys()
    for k in want:
        np.testing.assert_allclose(got[k], want[k], rtol=1e-5, atol=1e-6, err_msg=k)


def test_bfloat16_is_near_float32():
    """And not equal to it, so that the dtype has reached the model."""
    exact = on_one_device("clip_emoji")[0]["loss"]
    rounded = one_step("clip_emoji", dtype="bfloat16")[0]["loss"]
    np.testing.assert_allclose(rounded, exact, rtol=0.05)
    assert rounded != exact
