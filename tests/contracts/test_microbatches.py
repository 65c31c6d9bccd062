"""Every system has the same gradient whole and in microbatches, or says why it cannot."""

import jax
import numpy as np
import pytest
import toy

from mmjax import config as configs
from mmjax.models.efficientnet import lite_fields
from mmjax.models.systems import SYSTEMS

CONFIGS = {
    "aligner": "align_emoji",
    "audioclip": "audioclip_stamps",
    "audio_classifier": "ast_esc10",
    "avsr": "avsr_digits",
    "blip_nlvr": "blip_nlvr2",
    "captioner": "captioner_drawings",
    "clip": "clip_emoji",
    "coca": "coca_emoji",
    "dalle": "dalle_emoji",
    "diffusion": "dit_xl2",
    "diffusion_prior": "prior_emoji",
    "flamingo": "flamingo_emoji",
    "flava": "flava_emoji",
    "glide": "glide_emoji",
    "image_tokenizer": "dvae_emoji",
    "llava": "llava_emoji",
    "multimodal": "fusion_digits",
    "noised_clip": "noised_clip_emoji",
    "owlvit": "owlvit_boards",
    "sam": "sam_boards",
    "video_vit": "vivit_b",
    "video_vq": "video_vq_wesnoth",
    "videobert": "videobert_wesnoth",
    "unclip": "unclip_emoji",
    "vilt": "vilt_emoji",
    "vit": "vit_cifar10",
    "vqa": "vqa_emoji",
    "whisper": "whisper_fsdd",
}
UNTRAINED = (
    "image_codebook",
    "karlo",
    "prior_transformer",
    "text_encoder",
)  # no loss of its own, the latter without a head
# Rows are fused with those of others, or normalized with them.
COUPLED = {"albef": "albef_emoji", "blip": "blip_emoji", "clap": "clap_esc10"}
COUPLED |= {"relation_network": "sort_of_clevr"}


def load(system):
    """A toy config of a system without dropout, whose draws differ from part to part."""
    if system == "language_model":
        config = configs.defaults()
        decoder = {"depth": 2, "heads": 2, "mlp_dim": 32}
        config.model = {"name": system, "text": {**toy.TEXT, "decoder": decoder}}
        del config.model.text["heads"], config.model.text["mlp_dim"], config.model.text["remat"]
        config.batch_size, config.loss_weights = 8, {"captioning": 1.0}
        config.optim = {"name": "adamw", "learning_rate": 1e-2}
        return config
    if system == "efficientnet":
        config = configs.defaults()
        stages = [{"channels": 8, "depth": 2, "kernel": 3, "stride": 2, "expand": 2}]
        sizes = {"stem": 8, "stages": stages, "head": 16, "image_size": (8, 8), "num_classes": 5}
        config.model = {"name": system, **lite_fields("lite0"), **sizes}
        config.batch_size, config.loss_weights = 8, {"classification": 1.0}
        config.optim = {"name": "adamw", "learning_rate": 1e-2}
        return config
    config = toy.shrink(configs.load(f"configs/{(CONFIGS | COUPLED)[system]}.py", ()))
    with config.unlocked():
        if system == "multimodal":
            config.model.mask_ratio = 0.4
            config.model.update(fallback_depth=1)
            config.model.fusion.reconstruction = 4
            config.loss_weights = {"classification": 1.0, "masked_image": 1.0, "masked_audio": 0.5}
            config.loss_weights.update(fallback=0.5, reconstruction=0.5)
        if system == "aligner":  # all of its objectives
            config.model.update(space="text", cycle=True, discriminator=8, head={"inner": 0})
            names = ("adversarial", "transport", "centroids", "translation", "cycle", "alignment")
            config.loss_weights.update(dict.fromkeys(names, 0.5))
        if system == "vilt":  # all of its objectives
            config.model.update(words=True, matching=2)
            config.model.image.padded_size = (8, 8)
            config.loss = {"mask_id": 1, "mask_ratio": 0.4}
            config.loss_weights = {"classification": 1.0, "masked_text": 1.0, "matching": 1.0}
            config.loss_weights.alignment = 0.1
        deterministic(config.model)
    return config


def deterministic(section):
    """Every kind of dropout of a model's settings off, in place."""
    for name, value in section.items():
        if hasattr(value, "items"):
            deterministic(value)
        elif name.endswith("dropout") or name == "stochastic_depth":
            section[name] = 0.0


def gradients_in(parts, config):
    """(total, terms, gradients) of one step in so many microbatches, from drawn parameters."""
    with config.unlocked():
        config.microbatches = parts
    run = toy.build(config.lock())
    step = jax.jit(lambda *given: run.gradients(*given)[0])
    found = step(toy.drawn(run), toy.put(run, toy.batch(config)), run.numbers(3))
    return jax.device_get((found.total, found.terms, found.grads))


PARTS = [(system, 4) for system in sorted(SYSTEMS.keys() - {*UNTRAINED, *COUPLED})] + [("vit", 2)]


@pytest.mark.parametrize(("system", "parts"), PARTS)
def test_parts_give_the_gradient_of_the_whole(system, parts):
    total, terms, grads = gradients_in(1, load(system))
    found_total, found_terms, found = gradients_in(parts, load(system))
    largest = max(np.abs(g).max() for g in jax.tree.leaves(grads))
    assert largest > 1e-4
    np.testing.assert_allclose(found_total, total, rtol=1e-5)
    for name, value in terms.items():
        np.testing.assert_allclose(found_terms[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * largest), found, grads
    )


@pytest.mark.parametrize("system", sorted(COUPLED))
def test_a_system_that_couples_rows_refuses_parts_and_says_why(system):
    config = toy.shrink(configs.load(f"configs/{COUPLED[system]}.py", ()))
    with config.unlocked():
        config.microbatches = 2
    with pytest.raises(ValueError, match=r"microbatches is 2, but .* mixes the rows .* \(\w.*\)"):
        toy.build(config.lock())


def test_every_system_is_tested():
    assert {*CONFIGS, "efficientnet", "language_model", *UNTRAINED, *COUPLED} == set(SYSTEMS)
