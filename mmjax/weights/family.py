"""The families of published models, by the `model_type` of their config.json.

Each is a module with
    model_config(published) -> `config.model`; rows(model) -> rename table;
    IGNORED: regular expressions that match full names of tensors that are not parameters;
for models of images, one of
    image_source(published) -> image_processor.Source, for files of `transformers`;
    transform(published) -> the chain of transforms up to uint8 pixels;
for models of audio,
    audio_transform(published) -> the chain of transforms from an encoded file to the input;
optionally, where files name tensors in several ways,
    canonical(name) -> the name in the table;
optionally, where files may differ from their config,
    prepare(published) -> the same with the difference resolved, and notes for the report;
optionally, for models of text whose files differ from what `tokenizer.read` expects,
    read_tokenizer(published) -> Tokenizer;
optionally, where these are not in `published.KEPT` of config.json,
    kept(published) -> ids of special tokens by their names there;
optionally, for models that generate text,
    read_generation(published) -> the content of generation_config.json;
optionally, where texts are shorter than the position table,
    text_length(published) -> tokens, or None;
optionally, where files have prompts for texts,
    prompts(published) -> name -> prompt;
and, where our models can be saved in the family's layout,
    SYSTEM: our `config.model.name`; published_config(model) -> config.json;
    optionally published_preprocessor(model, transform) -> preprocessor_config.json;
    optionally complete_config(config, pretrained) -> config.json with further settings;
    optionally published_name(name, model) -> the name in the files of a name in the table;
    optionally LAYOUT: the names of the files, if other than `published.HUB`, and LAYOUTS, by the
        folder of a tensor whose name begins with one; TOKENIZER: the folder of the tokenizer;
    optionally buffers(model) -> name -> array, of tensors that are not parameters;
    optionally published_generation(pretrained) -> generation_config.json;
    optionally published_files(pretrained) -> name -> content of further JSON files;
    optionally for_saving(pretrained) -> Pretrained, adapted to the family.
"""

from types import ModuleType
from typing import Any

from mmjax.config import nearest
from mmjax.weights.families import (
    albef,
    align,
    ast,
    audioclip,
    bert,
    big_vision,
    blip,
    blip_nlvr,
    chinese_clip,
    clap,
    clip,
    clip_vision,
    compact_transformers,
    dall_e,
    diffusers_dit,
    diffusers_unet,
    dinov2,
    efficientnet_lite,
    flava,
    flava_codebook,
    gemma,
    glide,
    gpt2,
    idefics3,
    karlo,
    llama,
    llama_gguf,
    llava,
    open_clip,
    open_clip_coca,
    owlvit,
    paligemma,
    prior_transformer,
    sam,
    siglip,
    siglip2,
    videomae,
    vilt,
    vit,
    vivit,
    whisper,
    whisper_ct2,
)

FAMILIES = {
    "DiTTransformer2DModel": diffusers_dit,
    "PriorTransformer": prior_transformer,
    "UNet2DModel": diffusers_unet,
    "UnCLIPImageVariationPipeline": karlo,
    "UnCLIPPipeline": karlo,
    "albef": albef,
    "align": align,
    "audio-spectrogram-transformer": ast,
    "audioclip": audioclip,
    "bert": bert,
    "big_vision": big_vision,
    "blip": blip,
    "blip_nlvr": blip_nlvr,
    "chinese_clip": chinese_clip,
    "chinese_clip_vision_model": clip_vision,
    "clap": clap,
    "clip": clip,
    "clip_vision_model": clip_vision,
    "compact_transformers": compact_transformers,
    "ctranslate2": whisper_ct2,
    "dall_e": dall_e,
    "deit": vit,
    "dinov2": dinov2,
    "dinov2_with_registers": dinov2,
    "flava": flava,
    "flava_image_codebook": flava_codebook,
    "gemma": gemma,
    "gemma2": gemma,
    "gguf": llama_gguf,
    "glide": glide,
    "gpt2": gpt2,
    "idefics3": idefics3,
    "llama": llama,
    "llava": llava,
    "mistral": llama,
    "open_clip": open_clip,
    "open_clip_coca": open_clip_coca,
    "owlv2": owlvit,
    "owlvit": owlvit,
    "paligemma": paligemma,
    "qwen2": llama,
    "roberta": bert,
    "sam": sam,
    "siglip": siglip,
    "siglip2": siglip2,
    "siglip_vision_model": clip_vision,
    "smolvlm": idefics3,
    "tf_efficientnet_lite": efficientnet_lite,
    "videomae": videomae,
    "vilt": vilt,
    "vit": vit,
    "vivit": vivit,
    "whisper": whisper,
    "xlm-roberta": bert,
}


def family(model_type: Any, where: str) -> ModuleType:
    """The module of a family.

    Raises:
      ValueError: an unknown family, or no name of one.
    """
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ValueError(
            f"'{where}' describes a model of type {model_type!r}; these families can be loaded: "
            f"{', '.join(FAMILIES)}.{nearest(str(model_type), FAMILIES)}"
        )
    return FAMILIES[model_type]


def saving_family(model: Any, system: str, named: str | None = None) -> ModuleType:
    """The named family, or by default the first, in whose layout our model can be saved.

    Raises:
      ValueError: there is none; the message says why.
    """
    reasons = []
    if named not in (None, *FAMILIES):
        raise ValueError(f"The family is '{named}'; use one of {', '.join(FAMILIES)}.")
    candidates = {k: x for k, x in FAMILIES.items() if named in (None, k)}
    for found in dict.fromkeys(candidates.values()):
        if getattr(found, "SYSTEM", None) == system:
            try:
                found.published_config(model)
            except ValueError as error:
                reasons.append(str(error))
            else:
                return found
    like = f"'{named}' is not" if named else "No published family is"
    raise ValueError(" ".join(reasons) or f"{like} like a '{system}': it cannot be saved.")
