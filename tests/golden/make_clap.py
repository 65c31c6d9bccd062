"""Make tests/golden/clap and tests/golden/clap_fusion: small random CLAPs of transformers.

    python tests/golden/make_clap.py

Made with torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3. Spectrograms are shorter than the
image and of an odd length; heads and depths differ by stage. clap_fusion has windows that do not
divide the grid, no norm of the patches, no bias of queries, keys and values, and rows that are
longer and rows that are not (given, as the feature extractor draws one of short clips at random).
Of the training mode: the embeddings, and one step of the batch norms' running statistics.
"""

import json

import numpy as np
import torch
from golden_files import write
from small_models import TEXT, byte_level, folder, padded, redraw
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

EXTRACTOR = {
    "feature_extractor_type": "ClapFeatureExtractor",
    "max_length_s": 1,
    "sampling_rate": 8000,
    "hop_length": 80,
    "fft_window_size": 256,
    "frequency_min": 50,
    "frequency_max": 3900,
}


def make(name, audio, frames, features):
    out = folder(__file__, name)
    text = {**TEXT, "vocab_size": 300, "num_attention_heads": 4, "projection_dim": 12}
    config = ClapConfig(
        text_config=text,
        audio_config={"patch_size": 4, "window_size": 4, "hidden_dropout_prob": 0.0, **audio},
        projection_dim=12,
    )
    config.text_config.hidden_dropout_prob = config.text_config.attention_probs_dropout_prob = 0.0
    model = redraw(ClapModel(config))
    with torch.no_grad():  # a small table of the positions of keys
        for key, value in model.named_parameters():
            if key.endswith("bias_table"):
                value.normal_(0, 0.5)
        mel_norm = model.audio_model.audio_encoder.batch_norm  # decibels
        mel_norm.running_mean.mul_(10).sub_(30)
        mel_norm.running_var.mul_(400)
        model.logit_scale_a.fill_(2.0)
        model.logit_scale_t.fill_(1.5)
    model.save_pretrained(out)
    byte_level(out, 290, ["<s>", "<pad>", "</s>", "<unk>"], wrapped=True)
    roles = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    (out / "tokenizer_config.json").write_text(json.dumps(roles))
    (out / "preprocessor_config.json").write_text(json.dumps(EXTRACTOR | features, indent=2))

    encoder, kept = model.audio_model.audio_encoder, []
    blocks = [block for layer in encoder.layers for block in layer.blocks]
    for module in [encoder.patch_embed, *blocks]:
        module.register_forward_hook(
            lambda _, args, y: kept.append(y[0] if isinstance(y, tuple) else y)
        )
    ids, mask = padded([12, 7, 3], 12, 5, 290, pad=1)
    fusion = config.audio_config.enable_fusion
    mels = config.audio_config.num_mel_bins
    mel = 20 * torch.randn(3, 4 if fusion else 1, frames, mels) - 30
    longer = torch.tensor([[True], [False], [True]])
    arguments = {"input_ids": ids, "attention_mask": mask.long(), "input_features": mel}
    with torch.inference_mode():
        found = model(**arguments, is_longer=longer)
        layers = model.text_model(ids, mask.long(), output_hidden_states=True)
    outputs = {
        "audio": mel if fusion else mel[:, 0],
        "text": ids.int(),
        "text_mask": mask,
        "audio_embed": found.audio_embeds,
        "text_embed": found.text_embeds,
        "audio_features": found.audio_model_output.pooler_output,
        "logits_per_audio": found.logits_per_audio,
        "logits_per_text": found.logits_per_text,
        "text_layers": torch.stack(layers.hidden_states),
        **{f"audio_layer_{i}": x for i, x in enumerate(kept)},
    }
    if fusion:
        outputs["audio_longer"] = longer[:, 0]
    extract, rng = ClapFeatureExtractor(**EXTRACTOR, **features), np.random.default_rng(1)
    for size in (1300, 4001, 8000, *((8079,) if fusion else ())):
        outputs |= clip_and_mel(extract, size, rng)
    if fusion:  # a longer clip: three crops that do not depend on chance; of 64 mels alone
        extract = ClapFeatureExtractor(**{**EXTRACTOR, "fft_window_size": 1024})
        outputs |= clip_and_mel(extract, 8200, rng)
    model.train()
    with torch.no_grad():
        found = model(**arguments, is_longer=longer)
    outputs["train_audio_embed"] = found.audio_embeds
    for key, value in model.named_buffers():
        if "running_" in key:
            outputs[f"train/{key}"] = value
    write(out, **outputs)


def clip_and_mel(extract, size, rng):
    """A noise that fades, and its features."""
    noise = rng.normal(size=size) * np.geomspace(1, 1e-3, size)
    clip = (8000 * noise).clip(-32768, 32767).astype(np.int16)
    mel = extract(clip / 32768, sampling_rate=8000)["input_features"][0]
    return {f"clip_{size}": clip, f"mel_{size}": mel.astype(np.float32)}


def main():
    make(
        "clap",
        {
            "num_mel_bins": 8,
            "spec_size": 32,
            "depths": [2, 1],
            "num_attention_heads": [2, 4],
            "patch_embeds_hidden_size": 12,
            "hidden_size": 24,
            "mlp_ratio": 2.0,
        },
        101,
        {"feature_size": 8, "truncation": "rand_trunc"},
    )
    make(
        "clap_fusion",
        {
            "num_mel_bins": 12,
            "spec_size": 48,
            "window_size": 5,
            "depths": [2, 2],
            "num_attention_heads": [1, 3],
            "patch_embeds_hidden_size": 12,
            "hidden_size": 24,
            "mlp_ratio": 3.0,
            "enable_fusion": True,
            "fusion_type": "aff_2d",
            "enable_patch_layer_norm": False,
            "qkv_bias": False,
        },
        101,
        {"feature_size": 12},
    )


if __name__ == "__main__":
    main()
