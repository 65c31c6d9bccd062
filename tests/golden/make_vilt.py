"""Make tests/golden/vilt{,_words,_vqa,_nlvr2,_retrieval,_tokens}: small random ViLTs, and what
transformers' classes give for images of several sizes in one padded batch.

    pip install torch==2.13.0 transformers==5.23.0 pillow && python tests/golden/make_vilt.py

ViltModel draws the order of the patches anew at every call; here they stay in order, the valid ones
of each image first.
"""

import numpy as np
import torch
import transformers as t
from golden_files import write
from small_models import folder, padded, pixel_values, redraw, wordpiece

SIZES = {
    "vocab_size": 160,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 14,
    "image_size": 24,
    "patch_size": 8,
}
# The third is no multiple of the patch size.
VALID = ((24, 40), (40, 16), (13, 21), (8, 32))
PADDED = (40, 40)
ANSWERS = {str(i): name for i, name in enumerate(("no", "yes", "2", "red", "a cat"))}
HALF = (0.5, 0.5, 0.5)
NLVR2 = {"modality_type_vocab_size": 3, "num_images": 2}
MODELS = {
    "vilt": (t.ViltModel, {"max_image_length": 30, "image_size": 16}),
    "vilt_words": (t.ViltForMaskedLM, {"qkv_bias": False, "layer_norm_eps": 1e-6}),
    "vilt_vqa": (t.ViltForQuestionAnswering, {"id2label": ANSWERS}),
    "vilt_nlvr2": (t.ViltForImagesAndTextClassification, NLVR2),
    "vilt_retrieval": (t.ViltForImageAndTextRetrieval, {"hidden_act": "relu"}),
    "vilt_tokens": (t.ViltForTokenClassification, {"id2label": ANSWERS}),
}


def in_order(weights, count, replacement=False):
    """In place of torch.multinomial."""
    return torch.arange(count) % len(weights) if replacement else torch.arange(count)


def batch(seed):
    """Images [4, 40, 40, 3] uint8 with noise in the padding, sizes, and transformers' inputs."""
    rng = np.random.default_rng(seed)
    image = torch.tensor(rng.integers(0, 256, (len(VALID), *PADDED, 3), np.uint8))
    size = torch.tensor(np.roll(VALID, seed, axis=0))
    rows, columns = (torch.arange(n)[None] < size[:, i, None] for i, n in enumerate(PADDED))
    mask = rows[:, :, None] & columns[:, None]
    return image, size.int(), pixel_values(image, HALF, HALF) * mask[:, None], mask.long()


def raw_images():
    """Smooth images of odd sizes, for the image processor."""
    made = {}
    for height, width in ((31, 57), (90, 33), (24, 24), (20, 71)):
        y, x = np.mgrid[:height, :width]
        channels = [7 * x + 3 * y, (x * y) // 3 + 31, 255 - 2 * x + y]
        made[f"{height}x{width}"] = np.stack(channels, -1).astype(np.uint8)
    return made


def processed(processor):
    """Raw images, and what the processor makes of them as one batch."""
    made = raw_images()
    found = processor(list(made.values()), return_tensors="np")
    raw = {f"raw_{name}": torch.tensor(x) for name, x in made.items()}
    values, mask = (torch.tensor(found[k]) for k in ("pixel_values", "pixel_mask"))
    return {**raw, "pixel_values": values, "pixel_mask": mask.bool()}


def main():
    torch.multinomial = in_order
    for seed, (name, (kind, settings)) in enumerate(MODELS.items()):
        out = folder(__file__, name)
        model = redraw(kind(t.ViltConfig(**{**SIZES, **settings})), seed)
        model.save_pretrained(out)
        wordpiece(out, 150)
        processor = t.ViltImageProcessorPil(size={"shortest_edge": 24}, size_divisor=8)
        processor.save_pretrained(out)
        ids, mask = padded([12, 7, 3, 9], 12, 5, 160, seed=seed)
        image, size, values, pixels = batch(seed=0)
        inputs = {"input_ids": ids, "attention_mask": mask.long()}
        given = {"text": ids.int(), "text_mask": mask}
        if name == "vilt":
            segment = (torch.arange(12)[None] >= torch.tensor([[5], [4], [12], [2]])).long() * mask
            inputs["token_type_ids"], given["text_segment"] = segment, segment.int()
        if name == "vilt_nlvr2":
            other, size2, values2, pixels2 = batch(seed=1)
            image, size = torch.stack([image, other], 1), torch.stack([size, size2], 1)
            values, pixels = torch.stack([values, values2], 1), torch.stack([pixels, pixels2], 1)
        given |= {"image": image, "image_size": size}
        inputs |= {"pixel_values": values, "pixel_mask": pixels}
        more = processed(processor) if name == "vilt" else {}
        if name == "vilt_vqa":
            inputs["labels"] = torch.rand(len(ids), len(ANSWERS)).round(decimals=1)
            more["labels"] = inputs["labels"]
        if name == "vilt_words":
            masked = (torch.arange(12)[None] % 3 == 1) & mask
            inputs["labels"] = torch.where(masked, (ids + 7) % 160, -100)
            more |= {"masked": masked, "target": ((ids + 7) % 160).int()}
        if name == "vilt_tokens":
            inputs["labels"] = torch.where(mask, ids % len(ANSWERS), -100)
            more["labels"] = inputs["labels"].int()
        with torch.inference_mode():
            found = model(**inputs, output_hidden_states=True)
        if name == "vilt":
            more |= {"tokens": found.last_hidden_state, "pooled": found.pooler_output}
        else:
            more["logits"] = found.logits
        if name != "vilt_nlvr2":
            more["layers"] = torch.stack(found.hidden_states)
        if found.get("loss") is not None:
            more["loss"] = found.loss[None]
        write(out, **given, **more)


if __name__ == "__main__":
    main()
