"""Make tests/golden/owlvit and tests/golden/owlv2: small random models of the original code, with
what they give for some inputs, layer by layer; images also at other sizes than the trained one.

    pip install torch==2.13.0 torchvision==0.29.1 transformers==5.23.0 pillow
    python tests/golden/make_owlvit.py

owlv2 is in half precision, with a GELU. The queries of an image are padded with one whose first id
is 0, which the models mask; the processors pad with texts of one space, which the models do not.
"""

from pathlib import Path

import numpy as np
import torch
from golden_files import randomize, tokenizer_json, write
from transformers import (
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTImageProcessorPil,
)

HERE = Path(__file__).parent
LENGTH, VOCAB, QUERIES = 8, 64, 3
PADDED = (1, 2)  # (image, query)


def make(name, config_class, model_class, processor_class, act, dtype):
    """One golden folder."""
    torch.manual_seed(0)
    tower = {"intermediate_size": 40, "num_hidden_layers": 2, "hidden_act": act}
    config = config_class(
        text_config={
            **tower,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "vocab_size": VOCAB,
            "max_position_embeddings": LENGTH,
            "bos_token_id": VOCAB - 2,
            "eos_token_id": VOCAB - 1,
        },
        vision_config={
            **tower,
            "hidden_size": 24,
            "num_attention_heads": 2,
            "image_size": 24,
            "patch_size": 8,
        },
        projection_dim=32,  # the class head is as wide as the text tower
    )
    model = randomize(model_class(config))
    with torch.no_grad():  # boxes in the image, not at its edges
        model.box_head.dense2.weight *= 0.1
    model = model.to(dtype)
    folder = HERE / name
    model.save_pretrained(folder)
    processor = processor_class(size={"height": 24, "width": 24})
    processor.save_pretrained(folder)
    tokenizer_json(folder, "<|startoftext|>", "<|endoftext|>", vocab_size=VOCAB)

    rng = np.random.default_rng(0)
    text = rng.integers(3, VOCAB - 2, (2, QUERIES, LENGTH))
    ends = np.array([[4, 7, 2], [3, 6, 0]])[..., None]
    at = np.arange(LENGTH)
    text[..., 0] = VOCAB - 2
    text = np.where(at == ends, VOCAB - 1, np.where(at > ends, 0, text))
    text[PADDED] = 0
    mask = at <= ends
    mask[PADDED] = False
    images = {
        "image": rng.integers(0, 256, (2, 24, 24, 3), dtype=np.uint8),
        "wide": rng.integers(0, 256, (2, 16, 40, 3), dtype=np.uint8),  # 2 x 5 patches
    }
    # Read again: its buffer of box biases would stay rounded to half precision.
    whole, kept = model_class.from_pretrained(folder, dtype=torch.float32).eval(), {}
    with torch.no_grad():
        for key, image in images.items():
            pixels = processor.rescale_and_normalize(
                torch.tensor(image).permute(0, 3, 1, 2),
                True,
                1 / 255,
                True,
                processor.image_mean,
                processor.image_std,
            )
            given = {"pixel_values": pixels, "interpolate_pos_encoding": key != "image"}
            out = whole(
                input_ids=torch.tensor(text).flatten(0, 1),
                attention_mask=torch.tensor(mask.astype(np.int64)).flatten(0, 1),
                output_hidden_states=True,
                **given,
            )
            kept |= {key: image, f"{key}_logits": out.logits, f"{key}_boxes": out.pred_boxes}
            kept[f"{key}_map"] = out.image_embeds  # tokens before the heads
            kept[f"{key}_class_embed"] = whole.class_predictor(out.image_embeds.flatten(1, 2))[1]
            kept[f"{key}_layers"] = torch.stack(out.vision_model_output.hidden_states)
            if hasattr(out, "objectness_logits"):
                kept[f"{key}_objectness"] = out.objectness_logits
            found = processor.post_process_object_detection(
                out, threshold=0.3, target_sizes=[(30, 50), (70, 40)]
            )
            for i, one in enumerate(found):
                kept |= {f"{key}_found{i}_{k}": v for k, v in one.items()}
            guided = whole.image_guided_detection(query_pixel_values=pixels.flip(0), **given)
            kept[f"{key}_guided_logits"] = guided.logits
            kept[f"{key}_guided_boxes"] = guided.target_pred_boxes
            found = processor.post_process_image_guided_detection(
                guided,
                threshold=0.4,
                nms_threshold=0.3,
                target_sizes=torch.tensor([(30, 50), (70, 40)]),
            )
            for i, one in enumerate(found):
                kept |= {f"{key}_guided{i}_{k}": one[k] for k in ("boxes", "scores")}
        base = whole.owlvit if hasattr(whole, "owlvit") else whole.owlv2
        out = base(
            input_ids=torch.tensor(text[:, 0]),
            pixel_values=given["pixel_values"],
            attention_mask=torch.tensor(mask[:, 0].astype(np.int64)),
            interpolate_pos_encoding=True,
        )
    photos = {
        "photo": rng.integers(0, 256, (43, 61, 3), dtype=np.uint8),  # to be reduced
        "tall": rng.integers(0, 256, (34, 17, 3), dtype=np.uint8),
        "tiny": rng.integers(0, 256, (9, 14, 3), dtype=np.uint8),  # to be enlarged
    }
    # Of OWL-ViT that with Pillow: torchvision rounds a few pixels otherwise.
    exact = OwlViTImageProcessorPil(size=processor.size) if name == "owlvit" else processor
    for key, photo in photos.items():
        pixels = exact(photo, return_tensors="pt", do_normalize=False)["pixel_values"][0]
        kept |= {key: photo, f"{key}_pixels": pixels.permute(1, 2, 0) * 255}
    write(
        folder,
        **kept,
        text=text.astype(np.int32),
        text_mask=mask,
        clip_logits=out.logits_per_image,
        text_embed=out.text_embeds,
    )


make(
    "owlvit",
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    "quick_gelu",
    torch.float32,
)
make("owlv2", Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, "gelu", torch.float16)
