"""Make tests/golden/paligemma{,2}/ with transformers' PaliGemma at a small random size.

    python tests/golden/make_paligemma.py

Made with torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3, in half precision. `paligemma2`
has a Gemma 2, with a window shorter than the prefix.
"""

import torch
from golden_files import write
from small_models import byte_level, folder, images, pixel_values, redraw, write_json
from transformers import (
    Gemma2Config,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    SiglipVisionConfig,
)

TEXT = {
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 6,
    "intermediate_size": 28,
    "vocab_size": 284,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
VISION |= {"intermediate_size": 20, "image_size": 21, "patch_size": 7}
IMAGE = 3
GEMMA2 = {"num_hidden_layers": 3, "num_key_value_heads": 2, "sliding_window": 5}
GEMMA2 |= {"query_pre_attn_scalar": 9, "attn_logit_softcapping": 1.5}
GEMMA2 |= {"final_logit_softcapping": 2.5}


def main():
    make("paligemma", GemmaConfig(**TEXT))
    make("paligemma2", Gemma2Config(**TEXT | GEMMA2))


def make(name, text):
    out = folder(__file__, name)
    byte_level(out, 280, ["<pad>", "<bos>", "<eos>", "<image>"], wrapped=False)
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(out / "tokenizer_config.json", kind | names)
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**VISION, projection_dim=20, vision_use_head=False),
        text_config=text,
        image_token_index=IMAGE,
        projection_dim=20,
    )
    model = redraw(PaliGemmaForConditionalGeneration(config))
    for name, weight in model.named_parameters():
        if "language_model" in name and "norm" in name:
            weight.data -= 1  # Gemma stores the difference from 1
        if "q_proj" in name and "language_model" in name:
            weight.data *= 0.2  # else rounding decides what attends to what
    model.half().save_pretrained(out)
    # Not model.double(), whose rotary frequencies would stay rounded to half precision.
    model = PaliGemmaForConditionalGeneration.from_pretrained(out, dtype=torch.float64).eval()
    size = {"height": 21, "width": 21}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    write_json(
        out / "preprocessor_config.json",
        {"image_processor_type": "SiglipImageProcessor", "size": size, **half},
    )
    image = images(2, 21, 21)
    pixels = pixel_values(image, [0.5] * 3, [0.5] * 3).double()
    ids = torch.tensor(
        [[IMAGE] * 9 + [1, 30, 40, 50, 60, 70, 2], [IMAGE] * 9 + [1, 8, 9, 7, 2, 0, 0]]
    )
    mask = (ids != 0).long()
    answer = torch.tensor([[0] * 12 + [1] * 4, [0] * 11 + [1] * 3 + [0] * 2])
    with torch.inference_mode():
        given = {"pixel_values": pixels, "input_ids": ids, "attention_mask": mask}
        found = model(**given, token_type_ids=answer, output_hidden_states=True)
        settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": 283}
        prompt = ids[:1, :12]
        types = torch.zeros_like(prompt)
        written = model.generate(
            input_ids=prompt, pixel_values=pixels[:1], token_type_ids=types, **settings
        )
    write(
        out,
        image=image,
        text=ids.int(),
        text_mask=mask.bool(),
        text_loss_mask=answer.bool(),
        text_layers=torch.stack(found.hidden_states),
        text_logits=found.logits[..., ::3],
        written=written.int(),
    )


if __name__ == "__main__":
    main()
