"""Make tests/golden/{idefics3,smolvlm}/ with transformers' models at small random sizes.

    python tests/golden/make_idefics3.py

Made with torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3, in half precision. The texts and
tiles of `idefics3` come from its processor, whose images are resized by Pillow.
"""

import torch
from golden_files import write
from small_models import byte_level, folder, images, pixel_values, redraw, write_json
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

TILES = [f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)]
SPECIALS = ["<unk>", "<s>", "<end_of_utterance>", "<image>", "<fake_token_around_image>"]
SPECIALS += ["<global-img>", *TILES]
IMAGE = 3
TEXT = {
    "model_type": "llama",
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 28,
    "vocab_size": 292,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
VISION |= {"intermediate_size": 20, "image_size": 24, "patch_size": 4}
TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
    "{% if m['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}"
    "{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def make(name, kind, config):
    """A folder with a model, and the model in double precision."""
    out = folder(__file__, name)
    byte_level(out, 290, SPECIALS, wrapped=False)
    names = {"bos_token": "<s>", "eos_token": "<end_of_utterance>", "pad_token": "<unk>"}
    write_json(
        out / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, **names},
    )
    model = redraw(kind(config))
    model.model.connector.modality_projection.proj.weight.data *= 0.2
    for layer in model.model.text_model.layers:  # else rounding decides what attends to what
        layer.self_attn.q_proj.weight.data *= 0.15
    model.half().save_pretrained(out)
    # Not model.double(), whose rotary frequencies would stay rounded to half precision.
    return out, kind.from_pretrained(out, dtype=torch.float64).eval()


def expect(model, pixels, ids, mask):
    """What the model makes of images [B, M, 3, H, W] and texts."""
    given = {"pixel_values": pixels.double(), "input_ids": ids, "attention_mask": mask}
    with torch.inference_mode():
        found = model(**given, output_hidden_states=True)
        settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": 291}
        written = model.generate(input_ids=ids[:1], pixel_values=pixels[:1].double(), **settings)
    return {
        "text": ids.int(),
        "text_mask": mask.bool(),
        "text_layers": torch.stack(found.hidden_states),
        "text_logits": found.logits[..., ::3],
        "written": written.int(),
    }


def idefics3():
    vision = {"model_type": "idefics3_vision", **VISION}
    config = Idefics3Config(
        vision_config=vision, text_config=TEXT, image_token_id=IMAGE, scale_factor=3
    )
    out, model = make("idefics3", Idefics3ForConditionalGeneration, config)
    processor = Idefics3ImageProcessorPil(
        size={"longest_edge": 48}, max_image_size={"longest_edge": 24}
    )
    processor.save_pretrained(out)
    words = PreTrainedTokenizerFast.from_pretrained(out)
    both = Idefics3Processor(processor, words, image_seq_len=4)
    wide, square = images(1, 30, 70)[0], images(1, 33, 31, seed=1)[0]
    text = "<image>a red bus<image>two small dogs"
    given = both(text=[text], images=[[wide.numpy(), square.numpy()]], return_tensors="pt")
    pixels, ids, mask = (given[k] for k in ("pixel_values", "input_ids", "attention_mask"))
    tiles = ((pixels * 0.5 + 0.5) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
    found = expect(model, pixels, ids, mask)
    write(out, wide=wide, square=square, tiles=tiles[0], **found)


def smolvlm():
    vision = {"model_type": "smolvlm_vision", **VISION, "image_size": 8, "patch_size": 2}
    text = TEXT | {"tie_word_embeddings": True}
    config = SmolVLMConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, scale_factor=2
    )
    config.tie_word_embeddings = True
    out, model = make("smolvlm", SmolVLMForConditionalGeneration, config)
    sizes = {"size": {"longest_edge": 8}, "max_image_size": {"longest_edge": 8}}
    kind = {"image_processor_type": "SmolVLMImageProcessor", "do_image_splitting": False}
    write_json(out / "preprocessor_config.json", {**kind, **sizes})
    image = images(3, 8, 8)
    pixels = pixel_values(image, [0.5] * 3, [0.5] * 3)
    one = [4, 5, *[IMAGE] * 4, 4]
    rows = [[20, *one, 40, *one, 77, 2], [*one, 61, 62, 12, 2]]
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    pixels = torch.stack([pixels[:2], torch.stack([pixels[2], torch.zeros_like(pixels[2])])])
    write(out, image=image, **expect(model, pixels, ids, mask))


if __name__ == "__main__":
    idefics3()
    smolvlm()
