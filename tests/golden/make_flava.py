"""Make tests/golden/flava/, flava_model/ and flava_codebook/ with transformers' FLAVA, small.

    python tests/golden/make_flava.py

Made with torch 2.13.0, transformers 5.23.0, tokenizers 0.23.3 and pillow. `flava` is
FlavaForPreTraining with its codebook, of images that are not square; `flava_model` is FlavaModel
with other flags and another width in each encoder; `flava_codebook` is FlavaImageCodebook.
"""

import shutil

import numpy as np
import torch
from golden_files import write
from small_models import TEXT, folder, images, padded, pixel_values, redraw, wordpiece
from transformers import (
    FlavaConfig,
    FlavaForPreTraining,
    FlavaImageCodebook,
    FlavaImageCodebookConfig,
    FlavaImageProcessorPil,
    FlavaModel,
)

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
TOWER = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
IMAGE = {"image_size": [18, 24], "patch_size": 6, "vocab_size": 20}  # 3 x 4 patches
CODEBOOK = {"hidden_size": 8, "vocab_size": 20, "num_blocks_per_group": 1}
ROWS, LENGTH = 3, 12


def saved(model, out):
    """The model with new parameters, which the folder has in half precision."""
    model = redraw(model).half()
    model.save_pretrained(out)
    return model.float()


def processor(size, codebook_size, **settings):
    """An image processor without its own size or filter."""
    size, codebook = (dict(zip(("height", "width"), x)) for x in (size, codebook_size))
    return FlavaImageProcessorPil(
        size=size,
        crop_size=size,
        codebook_size=codebook,
        codebook_crop_size=codebook,
        **settings,
    )


def prepared(out, made):
    """What the image processor makes of one image, which is larger."""
    image = images(1, 41, 53, seed=3)
    found = made(list(image.numpy()), return_tensors="pt", return_codebook_pixels=True)
    made.save_pretrained(out)
    return {
        "raw_image": image,
        "raw_pixels": found["pixel_values"],
        "raw_codebook_pixels": found["codebook_pixel_values"],
    }


def codebook_pixels(image):
    """[B, H, W, 3] uint8 -> [B, 3, H, W], as the image processor maps them."""
    return (0.8 * image.double() / 255 + 0.1).permute(0, 3, 1, 2).float().contiguous()


def features(model, image, ids, mask):
    """The outputs of a FlavaModel by layers, without masking."""
    pixels = pixel_values(image, MEAN, STD)
    found = model(ids, pixels, mask.long(), return_dict=True)
    image_out, text_out = found.image_output, found.text_output
    both = [model.image_to_mm_projection(image_out.hidden_states[-1])]
    both += [model.text_to_mm_projection(text_out.hidden_states[-1])]
    first = image_out.hidden_states[-1].shape[1] + model.multimodal_model.use_cls_token
    whole = torch.cat([torch.ones(len(mask), first), mask.float()], 1)
    joint = model.multimodal_model(torch.cat(both, 1), whole, output_hidden_states=True)
    torch.testing.assert_close(joint.last_hidden_state, found.multimodal_embeddings)
    embed = {
        "image": model.get_image_features(pixels).pooler_output[:, 0],
        "text": model.get_text_features(ids, mask.long()).pooler_output[:, 0],
    }
    outputs = {"image": image, "text": ids.int(), "text_mask": mask}
    for name, x in (("image", image_out), ("text", text_out), ("multimodal", joint)):
        outputs[f"{name}_layers"] = torch.stack(x.hidden_states)
        outputs[f"{name}_tokens"] = x.last_hidden_state
        outputs[f"{name}_pooled"] = x.pooler_output
    for name, x in embed.items():
        outputs[f"{name}_embed"] = torch.nn.functional.normalize(x, dim=-1)
    return outputs


def pretraining():
    """FlavaForPreTraining: all heads, and every loss of pairs, of images and of texts."""
    out = folder(__file__)
    wordpiece(out, 150)
    config = FlavaConfig(
        image_config=TOWER | IMAGE | {"num_hidden_layers": 2},
        text_config=TEXT | TOWER | {"num_hidden_layers": 3},
        multimodal_config=TOWER | {"num_hidden_layers": 2},
        image_codebook_config=CODEBOOK,
        hidden_size=24,
        projection_dim=20,
        logit_scale_init_value=2.5,
    )
    model = saved(FlavaForPreTraining(config), out)
    found = prepared(out, processor((18, 24), (24, 32)))
    image, target = images(ROWS, 18, 24), images(ROWS, 24, 32, seed=1)
    ids, mask = padded([12, 7, 3], LENGTH, 5, 160)
    rng = np.random.default_rng(5)
    chosen = torch.tensor(rng.random((ROWS, 12)) < 0.4)
    predicted = torch.tensor(rng.random((ROWS, LENGTH)) < 0.4) & mask
    predicted[:, 1] = True
    corrupted = torch.where(predicted, 4, ids)
    matched = torch.tensor([1, 0, 1])
    labels = torch.where(predicted, ids, -100)
    words = {"input_ids": ids, "input_ids_masked": corrupted, "attention_mask": mask.long()}
    looks = {"pixel_values": pixel_values(image, MEAN, STD), "bool_masked_pos": chosen}
    looks["codebook_pixel_values"] = codebook_pixels(target)

    def call(**given):
        fresh = {k: x.clone() if isinstance(x, torch.Tensor) else x for k, x in given.items()}
        return model(**fresh)  # it writes into its labels

    with torch.inference_mode():
        found |= features(model.flava, image, ids, mask)
        pairs = call(**words, **looks, mlm_labels=labels, itm_labels=matched)
        alone = call(**looks), call(**words, mlm_labels=labels)
        for name, x in pairs.loss_info.items():
            found[f"loss_{name}"] = x
        found |= {"loss_mim": alone[0].loss_info.mim, "loss_mlm": alone[1].loss_info.mlm}
        model.flava.logit_scale.fill_(5.0)
        model.train()  # where it clamps the scale; no dropout
        clamped = call(**words, **looks, mlm_labels=labels)
        found["loss_clamped"] = clamped.loss_info.global_contrastive
        model.eval()
        heads = {
            "masked_image": model.mim_head(pairs.image_masked_embeddings[:, 1:]),
            "masked_text": model.mlm_head(pairs.text_masked_embeddings),
            "multimodal_image": model.mmm_image_head(pairs.multimodal_masked_embeddings[:, 2:14]),
            "multimodal_text": model.mmm_text_head(pairs.multimodal_masked_embeddings[:, 14:]),
        }
        codes = model.image_codebook.get_codebook_indices(looks["codebook_pixel_values"])
    write(
        out,
        **found,
        **{f"{name}_logits": x for name, x in heads.items()},
        itm_logits=pairs.itm_logits,
        contrastive_logits=pairs.contrastive_logits_per_image,
        image_codebook=target,
        image_codes=codes.flatten(1).int(),
        image_masked=chosen,
        text_corrupted=corrupted.int(),
        text_masked=predicted,
        text_matched=matched.bool(),
    )


def bare():
    """FlavaModel with encoders of three widths, and the flags that are usually on turned off."""
    out = folder(__file__, "flava_model")
    wordpiece(out, 150)
    config = FlavaConfig(
        image_config={
            **TOWER,
            "num_hidden_layers": 2,
            "image_size": 16,
            "patch_size": 4,
            "mask_token": False,
            "qkv_bias": False,
            "layer_norm_eps": 1e-5,
        },
        text_config=TEXT | {"num_attention_heads": 2, "hidden_size": 20, "type_vocab_size": 1},
        multimodal_config={
            "hidden_size": 16,
            "num_attention_heads": 4,
            "intermediate_size": 30,
            "num_hidden_layers": 1,
            "hidden_act": "gelu_new",
            "use_cls_token": False,
            "qkv_bias": False,
        },
        projection_dim=12,
    )
    model = saved(FlavaModel(config), out)
    processor((16, 16), (16, 16), do_center_crop=False, resample=2).save_pretrained(out)
    ids, mask = padded([9, 2, 5, 1], 9, 5, 160)
    with torch.inference_mode():
        found = features(model, images(4, 16, 16), ids, mask)
    write(out, **found)


def codebook():
    """FlavaImageCodebook with several blocks in a group."""
    out = folder(__file__, "flava_codebook")
    config = CODEBOOK | {"num_blocks_per_group": 2, "hidden_size": 4, "vocab_size": 37}
    model = saved(FlavaImageCodebook(FlavaImageCodebookConfig(**config)), out)
    found = prepared(out, processor((20, 20), (24, 40)))
    image = images(2, 24, 40)
    with torch.inference_mode():
        logits = model(codebook_pixels(image))
        codes = model.get_codebook_indices(codebook_pixels(image))
    write(out, **found, image=image, logits=logits.permute(0, 2, 3, 1), codes=codes.int())


if __name__ == "__main__":
    pretraining()
    bare()
    codebook()
    shutil.rmtree("__pycache__", ignore_errors=True)
