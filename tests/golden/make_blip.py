"""Make tests/golden/blip_{captioner,retrieval,vqa}/ with transformers' BLIP at small random sizes.

    python tests/golden/make_blip.py

Made with torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3, in half precision.

`generate` replaces the first token of a prompt by bos_token_id and drops the last, which is [SEP]:
so prompts have both. Its cross-attention ignores encoder_attention_mask, and attends to the padding
of questions: so answers are computed one by one. They need images and texts of one width.
"""

import torch
from golden_files import write
from small_models import folder, images, padded, pixel_values, redraw, wordpiece, write_json
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
)

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
BOS, SEP = 158, 3
TEXT = {"vocab_size": 160, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
TEXT |= {"intermediate_size": 40, "max_position_embeddings": 32, "label_smoothing": 0.1}
TEXT |= {"bos_token_id": BOS, "sep_token_id": SEP}
VISION = {"hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"intermediate_size": 28, "image_size": 24, "patch_size": 8}


def make(kind, name, text, vision, **more):
    """A folder with a model, and the model in fp32."""
    out = folder(__file__, name)
    wordpiece(out, 150)
    config = BlipConfig(text_config=TEXT | text, vision_config=VISION | vision, **more)
    model = redraw(kind(config))
    if hasattr(model, "text_decoder"):  # texts that vary, and end at different lengths
        decoder = model.text_decoder
        decoder.bert.embeddings.position_embeddings.weight.mul_(6)
        for layer in decoder.bert.encoder.layer:
            layer.crossattention.output.dense.weight.mul_(0.3)
        for x in (decoder.cls.predictions.bias, decoder.cls.predictions.transform.LayerNorm.bias):
            x.mul_(0)
        decoder.cls.predictions.bias[SEP] += 3.2
    model.half().save_pretrained(out)
    size = dict.fromkeys(("height", "width"), config.vision_config.image_size)
    write_json(
        out / "preprocessor_config.json",
        {
            "do_normalize": True,
            "do_resize": True,
            "image_mean": MEAN,
            "image_std": STD,
            "image_processor_type": "BlipImageProcessor",
            "size": size,
        },
    )
    return out, model.float()


def sides(model):
    """Random images of the training size, their pixels, and the image tower's results."""
    side = model.config.vision_config.image_size
    image = images(3, side, side)
    pixels = pixel_values(image, MEAN, STD)
    vision = model.vision_model(pixels, output_hidden_states=True)
    larger = images(2, side + 8, side + 16, seed=1)
    found = {
        "image": image,
        "image_layers": torch.stack(vision.hidden_states),
        "image_tokens": vision.last_hidden_state,
        "larger": larger,
        "larger_tokens": model.vision_model(
            pixel_values(larger, MEAN, STD), interpolate_pos_encoding=True
        ).last_hidden_state,
    }
    return found, pixels


def generated(model, **given):
    """Greedy continuations and those of three beams, with their prompts.

    The search goes on until no beam can displace a finished text; by default transformers stops as
    soon as none would if it ended at once.
    """
    settings = {"max_new_tokens": 9, "min_new_tokens": 1, "do_sample": False}
    search = {"greedy": {}, "beams": {"num_beams": 3, "early_stopping": "never"}}
    copies = {name: {k: x.clone() for k, x in given.items()} for name in search}
    return {
        name: model.generate(**copies[name], **settings, **search[name]).int() for name in search
    }


def captioner():
    out, model = make(BlipForConditionalGeneration, "blip_captioner", {}, {})
    found, pixels = sides(model)
    ids, mask = padded([12, 7, 3], 12, 5, 150)
    ids[:, 0] = BOS
    labels = ids.masked_fill(~mask, -100)
    outputs = model(pixels, ids, mask.long(), labels=labels)
    layers = model.text_decoder(
        ids,
        attention_mask=mask.long(),
        encoder_hidden_states=found["image_tokens"],
        output_hidden_states=True,
    ).hidden_states
    prompt = torch.tensor([[2, 20, 31, SEP]] * 3)
    alone = torch.tensor([[2, SEP]] * 3)
    prompted = generated(model, pixel_values=pixels, input_ids=prompt)
    write(
        out,
        **found,
        text=ids.int(),
        text_mask=mask,
        text_logits=outputs.logits,
        text_layers=torch.stack(layers),
        loss=outputs.loss,
        prompt=prompt[:, :-1].int(),
        **{f"prompted_{k}": x[:, 3:] for k, x in prompted.items()},
        **{k: x[:, 1:] for k, x in generated(model, pixel_values=pixels, input_ids=alone).items()},
    )


def retrieval():
    text = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "gelu_new"}
    vision = {"hidden_size": 24, "num_attention_heads": 3, "image_size": 20, "patch_size": 4}
    out, model = make(
        BlipForImageTextRetrieval, "blip_retrieval", text, vision, image_text_hidden_size=10
    )
    found, pixels = sides(model)
    ids, mask = padded([12, 7, 3], 12, 5, 150)
    ids[:, 0] = 2
    encoder = {"attention_mask": mask.long(), "output_hidden_states": True}
    alone = model.text_encoder(ids, **encoder).hidden_states
    grounded = model.text_encoder(
        ids, encoder_hidden_states=found["image_tokens"], **encoder
    ).hidden_states
    write(
        out,
        **found,
        text=ids.int(),
        text_mask=mask,
        text_layers=torch.stack(alone),
        grounded_layers=torch.stack(grounded),
        match_logits=model(ids, pixels, attention_mask=mask.long()).itm_score,
        cosines=model(ids, pixels, use_itm_head=False, attention_mask=mask.long()).itm_score,
    )


def vqa():
    text = {"num_attention_heads": 4, "layer_norm_eps": 1e-6}
    out, model = make(BlipForQuestionAnswering, "blip_vqa", text, {"hidden_size": 24})
    found, pixels = sides(model)
    question, seen = padded([9, 4, 6], 9, 5, 150, seed=2)
    ids, mask = padded([7, 3, 5], 7, 5, 150)
    question[:, 0], ids[:, 0] = 2, BOS
    grounded = model.text_encoder(
        question,
        attention_mask=seen.long(),
        encoder_hidden_states=found["image_tokens"],
        output_hidden_states=True,
    )
    answers = [
        model.text_decoder(
            ids[i : i + 1],
            attention_mask=mask[i : i + 1].long(),
            encoder_hidden_states=grounded.last_hidden_state[i : i + 1, seen[i]],
            output_hidden_states=True,
        )
        for i in range(3)
    ]
    asked, _ = padded([9, 9, 9], 9, 5, 150, seed=3)
    asked[:, 0], asked[:, -1] = 2, SEP
    written = generated(
        model, pixel_values=pixels, input_ids=asked, attention_mask=torch.ones_like(asked)
    )
    write(
        out,
        **found,
        question=question.int(),
        question_mask=seen,
        question_layers=torch.stack(grounded.hidden_states),
        text=ids.int(),
        text_mask=mask,
        text_layers=torch.cat([torch.stack(x.hidden_states) for x in answers], 1),
        text_logits=torch.cat([x.logits for x in answers]),
        asked=asked.int(),
        **{k: x[:, 1:] for k, x in written.items()},
    )


if __name__ == "__main__":
    with torch.inference_mode():
        captioner()
        retrieval()
        vqa()
