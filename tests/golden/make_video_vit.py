"""Make tests/golden/{vivit,vivit_features,videomae,videomae_first,videomae_encoder,
videomae_pixels}: small random models of the original code, with what they give for videos, layer by
layer.

    pip install torch==2.13.0 pillow==13.0.0 transformers==5.23.0
    python tests/golden/make_video_vit.py

vivit: with a head of 5 classes, tubelets and frames that are not square. vivit_features: with a
pooler of another width, no biases of queries, keys and values, half precision. videomae: with a
head on the mean; videomae_first: on the first tubelet, without biases; videomae_encoder: a model
for pre-training, with its decoder; videomae_pixels: another, whose target is not normalized, with a
norm after the encoder and no biases of queries and values.
"""

from pathlib import Path

import numpy as np
import torch
import transformers as t
from golden_files import randomize, write
from PIL import Image

HERE = Path(__file__).parent
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def videos(count, frames, height, width):
    """Smooth random videos [count, frames, height, width, 3] uint8."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count * frames, 6, 7, 3), np.uint8)
    large = [np.asarray(Image.fromarray(x).resize((width, height), 3)) for x in coarse]
    return np.stack(large).reshape(count, frames, height, width, 3)


def make(name, model, processor, frames, dtype=torch.float32):
    """One golden folder."""
    model = randomize(model).to(dtype).eval()
    folder = HERE / name
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    raw = videos(2, frames, 31, 38)
    pixels = processor([list(video) for video in raw], return_tensors="pt")["pixel_values"]
    kept = {"raw": raw, "pixels": pixels}
    base = getattr(model, model.base_model_prefix, model)
    with torch.no_grad():
        if isinstance(model, t.VideoMAEForPreTraining):
            tubelets, rng = base.embeddings.num_patches, np.random.default_rng(1)
            # As many of each video, but not the same: any mask, also one that is no tube.
            masked = np.stack([rng.permutation(tubelets) < tubelets // 2 for _ in raw])
            # In float64 and with exact pixels: the original takes its targets from pixels that are
            # normalized and back.
            mean, std = (
                torch.tensor(getattr(processor, f"image_{x}")).double() for x in ("mean", "std")
            )
            mean, std = (x[:, None, None] for x in (mean, std))
            exact = (((pixels * std + mean) * 255).round() / 255 - mean) / std
            found = model.double()(exact, bool_masked_pos=torch.tensor(masked))
            kept |= {"masked": masked, "reconstruction": found.logits, "loss": found.loss[None]}
        out = base.float()(pixels, output_hidden_states=True)
        kept["layers"] = torch.stack(out.hidden_states)
        if getattr(out, "pooler_output", None) is not None:
            kept["features"] = out.pooler_output
        if hasattr(model, "classifier"):
            kept["logits"] = model.float()(pixels).logits
        elif "features" not in kept:
            kept["features"] = out.last_hidden_state.mean(1)
    write(folder, **kept)


def main() -> None:
    torch.manual_seed(0)
    size = {"size": {"shortest_edge": 30}, "crop_size": {"height": 24, "width": 16}}
    config = t.VivitConfig(
        **SIZES, image_size=[24, 16], num_frames=6, tubelet_size=[2, 8, 4], num_labels=5
    )
    processor = t.VivitImageProcessor(**size)
    make("vivit", t.VivitForVideoClassification(config), processor, 6)
    size["crop_size"] = {"height": 20, "width": 20}
    config = t.VivitConfig(
        **SIZES,
        image_size=20,
        num_frames=3,
        tubelet_size=[3, 5, 10],
        qkv_bias=False,
        pooler_output_size=12,
        hidden_act="gelu",
    )
    processor = t.VivitImageProcessor(
        **size, offset=False, rescale_factor=1 / 255, image_mean=[0.4, 0.5, 0.6]
    )
    make("vivit_features", t.VivitModel(config), processor, 3, torch.float16)
    crop = {"size": {"shortest_edge": 26}, "crop_size": {"height": 24, "width": 16}}
    sizes = {**SIZES, "image_size": [24, 16], "patch_size": 8, "num_frames": 4}
    pil = t.models.videomae.image_processing_pil_videomae.VideoMAEImageProcessorPil(**crop)
    config = t.VideoMAEConfig(**sizes, num_labels=5)
    make("videomae", t.VideoMAEForVideoClassification(config), pil, 4)
    config = t.VideoMAEConfig(**sizes, num_labels=3, use_mean_pooling=False, qv_bias=False)
    config.tubelet_size = 1
    make("videomae_first", t.VideoMAEForVideoClassification(config), pil, 4)
    sizes |= {"decoder_hidden_size": 8, "decoder_intermediate_size": 12}
    sizes |= {"decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    config = t.VideoMAEConfig(**sizes)
    # The original undoes ImageNet's normalization for its target, whatever the processor's is.
    crop |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    pil = t.models.videomae.image_processing_pil_videomae.VideoMAEImageProcessorPil(**crop)
    make("videomae_encoder", t.VideoMAEForPreTraining(config), pil, 4)
    sizes |= {"decoder_num_hidden_layers": 2, "decoder_hidden_size": 12, "tubelet_size": 1}
    other = {"use_mean_pooling": False, "qv_bias": False, "norm_pix_loss": False}
    config = t.VideoMAEConfig(**{**sizes, "image_size": 16}, **other)
    crop["crop_size"] = {"height": 16, "width": 16}
    pil = t.models.videomae.image_processing_pil_videomae.VideoMAEImageProcessorPil(**crop)
    make("videomae_pixels", t.VideoMAEForPreTraining(config), pil, 4)


if __name__ == "__main__":
    main()
