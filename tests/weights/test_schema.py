"""Settings that published models have, and those that no file of weights fits."""

import pytest

from mmjax.weights import schema
from mmjax.weights.families import clap, idefics3, llama, llava, paligemma, sam, whisper


@pytest.mark.parametrize(
    "name, value, default",
    [
        ("image_token_index", 32_000, llava.SETTINGS["image_token_index"]),  # Llava 1.5
        ("image_token_id", 49_190, idefics3.SETTINGS["image_token_id"]),  # SmolVLM
        ("sliding_window", 131_072, 4096),  # Qwen 2.5
        ("max_position_embeddings", 1_010_000, llama.SETTINGS["max_position_embeddings"]),
        ("vocab_size", 257_152, llama.SETTINGS["vocab_size"]),  # PaliGemma
        ("num_hidden_layers", 126, llama.SETTINGS["num_hidden_layers"]),  # Llama 3.1 405B
        ("intermediate_size", 53_248, llama.SETTINGS["intermediate_size"]),
        ("global_attn_indexes", [0, 5], sam.VISION["global_attn_indexes"]),
    ],
)
def test_settings_of_published_models(name, value, default):
    assert schema.check(name, value, default, "config.json") == value


@pytest.mark.parametrize(
    "name, value, default",
    [
        ("image_token_index", -1, 32_000),
        ("sliding_window", 2**31, 4096),
        ("image_size", 10**5, 224),
    ],
)
def test_settings_of_no_model(name, value, default):
    with pytest.raises(ValueError, match=f"'config.json' has {name} .*: get it again"):
        schema.check(name, value, default, "config.json")


@pytest.mark.parametrize("family", [clap, llama, llava, paligemma, sam, whisper])
def test_the_defaults_of_a_family_fit_its_schema(family):
    for name in ("SETTINGS", "TEXT", "VISION", "AUDIO", "PROMPTS", "DECODER"):
        for setting, default in getattr(family, name, {}).items():
            value = default.like if isinstance(default, schema.Maybe) else default
            assert schema.fits(setting, value, default), (name, setting)
