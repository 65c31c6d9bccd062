"""Make tests/golden/llava{,_siglip}/ with transformers' LLaVA at small random sizes.

    python tests/golden/make_llava.py

Made with torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3, in half precision. `llava`, as
LLaVA-1.5, has a CLIP, of which it reads the last layer but one without the class token, and is a
model that was built from a config; `llava_siglip` reads the first of three layers of a SigLIP,
through a projector without biases, into a tied Qwen2.
"""

import torch
from golden_files import write
from small_models import byte_level, folder, images, pixel_values, redraw, write_json
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
TEXT = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 28,
    "vocab_size": 284,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {"hidden_size": 20, "num_hidden_layers": 3, "num_attention_heads": 2}
VISION |= {"intermediate_size": 28, "image_size": 24, "patch_size": 8}
IMAGE = 3  # the token <image>
SPECIALS = ["<unk>", "<s>", "</s>", "<image>"]
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{% if m['role'] == 'user' %} {% else %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def make(name, vision, text, processor, each, **more):
    """A folder, and what the model makes of three rows with 2, 1 and no images."""
    out = folder(__file__, name)
    byte_level(out, 280, SPECIALS, wrapped=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(
        out / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, **names},
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, **more)
    model = redraw(LlavaForConditionalGeneration(config))
    model.model.multi_modal_projector.linear_2.weight.data *= 0.1  # as large as the embeddings
    for layer in model.model.language_model.layers:  # else rounding decides what attends to what
        layer.self_attn.q_proj.weight.data *= 0.3
    model.half().save_pretrained(out)
    # Not model.double(), whose rotary frequencies would stay rounded to half precision.
    model = LlavaForConditionalGeneration.from_pretrained(out, dtype=torch.float64).eval()
    write_json(out / "preprocessor_config.json", processor)

    image = images(3, 24, 24)
    pixels = pixel_values(image, processor["image_mean"], processor["image_std"]).double()
    rows = [
        [5, *[IMAGE] * each, 9, 40, *[IMAGE] * each, 77, 2],
        [*[IMAGE] * each, 61, 62, 12, 2],
        [8, 101, 33, 2],
    ]
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    labels = ids.masked_fill((mask == 0) | (ids == IMAGE), -100)
    with torch.inference_mode():
        given = {"pixel_values": pixels, "input_ids": ids, "attention_mask": mask}
        found = model(**given, output_hidden_states=True, labels=labels)
        tower = model.model.vision_tower(pixels, output_hidden_states=True)
        settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": 283}
        prompt = ids[:1, : len(rows[0]) - 1]
        written = model.generate(input_ids=prompt, pixel_values=pixels[:2], **settings)
    write(
        out,
        image=image,
        text=ids.int(),
        text_mask=mask.bool(),
        image_layers=torch.stack(tower.hidden_states),
        image_tokens=found.image_hidden_states,
        text_layers=torch.stack(found.hidden_states),
        text_logits=found.logits[..., ::3],
        loss=found.loss,
        written=written.int(),
    )


def main():
    square = {"height": 24, "width": 24}
    clip = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 24},
        "crop_size": square,
        "image_mean": MEAN,
        "image_std": STD,
    }
    make("llava", CLIPVisionConfig(**VISION), LlamaConfig(**TEXT), clip, 9)
    make(
        "llava_siglip",
        SiglipVisionConfig(**VISION, vision_use_head=False),
        Qwen2Config(**TEXT, tie_word_embeddings=True),
        {"image_processor_type": "SiglipImageProcessor", "size": square}
        | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        9,
        vision_feature_layer=1,
        vision_feature_select_strategy="full",
        multimodal_projector_bias=False,
        projector_hidden_act="gelu_pytorch_tanh",
    )


if __name__ == "__main__":
    main()
