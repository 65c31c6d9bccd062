"""Karlo in diffusers: the folders of UnCLIPPipeline and UnCLIPImageVariationPipeline.

A folder has model_index.json, and in a folder of its own each part's config and tensors.
"""

from collections.abc import Mapping
from typing import Any

from mmjax.data.text.tokenizer import Tokenizer
from mmjax.models.karlo import COLORS, Denoising, Karlo
from mmjax.models.unet import WIDTH_OF_TIME
from mmjax.system import BUFFERS
from mmjax.weights import (
    encoder_config,
    image_processor,
    published,
    schema,
    tokenizer,
    unet_table,
)
from mmjax.weights.families import clip, clip_vision, prior_transformer
from mmjax.weights.layouts import Row, linear, norm, same
from mmjax.weights.published import CONFIG, DIFFUSERS, HUB, Published
from mmjax.weights.saved_config import special_ids
from mmjax.weights.tensor_file import Files, Safetensors

SYSTEM = "karlo"
TEXTS, VARIATIONS = "UnCLIPPipeline", "UnCLIPImageVariationPipeline"
LAYOUT = DIFFUSERS._replace(config=published.PIPELINE)
LAYOUTS = dict.fromkeys(("text_encoder", "image_encoder"), HUB)  # other folders have LAYOUT
TOKENIZER = "tokenizer"
SCHEDULER, PREPROCESSOR = "scheduler_config.json", published.PREPROCESSOR
IGNORED = (r"(text|image)_encoder/(text|vision)_model\.embeddings\.position_ids",)
# part -> (library, class), of both pipelines, then of each.
PARTS = {
    "decoder": ("diffusers", unet_table.CONDITIONED),
    "decoder_scheduler": ("diffusers", "UnCLIPScheduler"),
    "super_res_first": ("diffusers", unet_table.UNET),
    "super_res_last": ("diffusers", unet_table.UNET),
    "super_res_scheduler": ("diffusers", "UnCLIPScheduler"),
    "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
    "text_proj": ("unclip", "UnCLIPTextProjModel"),  # as Karlo's; diffusers 0.42 says "diffusers"
    "tokenizer": ("transformers", "CLIPTokenizer"),
}
OWN = {
    TEXTS: {
        "prior": ("diffusers", "PriorTransformer"),
        "prior_scheduler": ("diffusers", "UnCLIPScheduler"),
    },
    VARIATIONS: {
        "feature_extractor": ("transformers", "CLIPImageProcessor"),
        "image_encoder": ("transformers", "CLIPVisionModelWithProjection"),
    },
}
# Settings that config files may omit: defaults of UnCLIPTextProjModel and of UnCLIPScheduler.
CONDITION = {
    "clip_extra_context_tokens": 4,
    "clip_embeddings_dim": 768,
    "time_embed_dim": 1280,
    "cross_attention_dim": 1536,
}
DENOISING = {
    "num_train_timesteps": 1000,
    "variance_type": "fixed_small_log",
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "prediction_type": "epsilon",
    "beta_schedule": "squaredcos_cap_v2",
}
TARGETS = {"epsilon": "epsilon", "sample": "x0"}
VARIANCES = {"fixed_small_log": "small", "learned_range": "learned"}


def prepare(found: Published) -> tuple[Published, list[str]]:
    """The folder with the configs of its parts under their names, and with their tensors.

    Raises:
      ValueError: a part that is missing, or of another class.
    """
    kind, tensors, configs = found.config["_class_name"], {}, {}
    for part, wanted in (PARTS | OWN[kind]).items():
        given = found.config.get(part)
        name = given[1] if isinstance(given, list) and len(given) == 2 else given
        plain = name
        for suffix in ("Fast", "Pil"):  # the same in another implementation
            plain = plain.removesuffix(suffix) if isinstance(plain, str) else plain
        plain = "CLIPImageProcessor" if plain == "CLIPFeatureExtractor" else plain
        if plain != wanted[1]:
            raise ValueError(
                f"'{found.folder / published.PIPELINE}' has the {part} {name!r}, and a {kind} "
                f"needs a {wanted[1]}: get it again."
            )
        folder = found.folder / part
        if part in ("tokenizer", "feature_extractor"):
            continue
        scheduler = part.endswith("_scheduler")
        configs[part] = published.read_json(folder / (SCHEDULER if scheduler else CONFIG))
        if not scheduler:
            layout = LAYOUTS.get(part, LAYOUT)
            tensors[f"{part}/"] = Safetensors(folder, layout.tensors, layout.index)
    files = Files(tensors)
    files.name = str(found.folder)
    found = found._replace(config={**found.config, **configs}, tensors=files)
    if kind == TEXTS:
        return found, []
    image = _part(found, "image_encoder")
    preprocessor = published.read_json(found.folder / "feature_extractor" / PREPROCESSOR)
    image, notes = image_processor.complete(
        image._replace(preprocessor=preprocessor), clip_vision.image_source(image)
    )
    return found._replace(preprocessor=image.preprocessor), notes


def _part(found: Published, part: str) -> Published:
    """A part as a folder of its own, without its tensors."""
    return Published(found.folder / part, found.config[part], found.preprocessor, Files({}))


def model_config(found: Published) -> dict[str, Any]:
    """`config.model` of a pipeline.

    Raises:
      ValueError: settings that our model does not support, or parts of different models.
    """
    where = found.folder / "text_encoder" / CONFIG
    text = published.settings(found.config["text_encoder"], clip.TEXT, where)
    width = clip.embed_dim(_part(found, "text_encoder"), 512)
    where = found.folder / "text_proj" / CONFIG
    condition = published.settings(found.config["text_proj"], CONDITION, where)
    variations = found.config["_class_name"] == VARIATIONS
    stages = ("decoder", "super_res") if variations else ("prior", "decoder", "super_res")
    denoising = {stage: _denoising(found, stage) for stage in stages}
    made = {
        "name": SYSTEM,
        "embed_dim": width,
        "text": {
            **encoder_config.read(text, "text_encoder"),
            "vocab_size": text["vocab_size"],
            "length": text["max_position_embeddings"],
        },
        "image_tokens": condition["clip_extra_context_tokens"],
        "context_width": condition["cross_attention_dim"],
        "denoising": denoising,
    }
    for part, stage in (
        ("decoder", "decoder"),
        ("super_res_first", "super_res"),
        ("super_res_last", "super_res"),
    ):
        made[part] = _unet(found, part, denoising[stage]["variance"] == "learned")
    for part, name in (("decoder", "image_size"), ("super_res_first", "large_size")):
        size = found.config[part].get("sample_size")
        made[name] = schema.check("sample_size", size, 64, found.folder / part / CONFIG)
    expected = {
        ("text_proj", "clip_embeddings_dim"): (condition["clip_embeddings_dim"], width),
        ("text_proj", "time_embed_dim"): (
            condition["time_embed_dim"],
            WIDTH_OF_TIME * sum(made["decoder"]["channels"][:1]),
        ),
        ("decoder", "cross_attention_dim"): (
            found.config["decoder"].get("cross_attention_dim", 1280),
            made["context_width"],
        ),
    }
    if variations:
        image = clip_vision.model_config(_part(found, "image_encoder"))
        made["image"] = {k: x for k, x in image.items() if k != "name"}
        dim = clip.embed_dim(_part(found, "image_encoder"), 512)
        expected["image_encoder", "projection_dim"] = dim, width
    else:
        prior = prior_transformer.model_config(_part(found, "prior"))
        expected["prior", "embedding_dim"] = prior["embed_dim"], width
        expected["prior", "num_embeddings"] = prior["length"], text["max_position_embeddings"]
        made["prior"] = {k: prior[k] for k in ("width", "depth", "heads", "dropout")}
    for (part, name), (has, needs) in expected.items():
        if has != needs:
            raise ValueError(
                f"'{found.folder / part / CONFIG}' has {name} {has!r}, and the other parts need "
                f"{needs!r}: they are from different models."
            )
    return made


def _unet(found: Published, part: str, learned: bool) -> dict[str, Any]:
    """Fields of the `UNet` of a part."""
    where, given = found.folder / part / CONFIG, found.config[part]
    inputs = COLORS if part == "decoder" else 2 * COLORS
    outputs = COLORS * (2 if learned else 1)
    fixed = {"_class_name": PARTS[part][1], "in_channels": inputs, "out_channels": outputs}
    fixed |= {"class_embed_type": "identity" if part == "decoder" else None}
    fixed |= {"num_class_embeds": None}
    for name, value in fixed.items():
        if given.get(name) != value:
            raise ValueError(
                f"'{where}' has {name} {given.get(name)!r}, and this {part} needs {value!r}: it "
                "cannot be loaded."
            )
    return unet_table.fields(given, str(where))


def _denoising(found: Published, stage: str) -> dict[str, Any]:
    """Fields of `Denoising` of a stage's scheduler."""
    part = f"{stage}_scheduler"
    where = found.folder / part / SCHEDULER
    s = published.settings(found.config[part], DENOISING, where)
    known = {
        "beta_schedule": (DENOISING["beta_schedule"],),
        "prediction_type": TARGETS,
        "variance_type": VARIANCES,
    }
    for name, values in known.items():
        if s[name] not in values:
            raise ValueError(f"'{where}' has {name} '{s[name]}'; use one of {', '.join(values)}.")
    if s["clip_sample"] and s["clip_sample_range"] <= 0:
        limit = s["clip_sample_range"]
        raise ValueError(f"'{where}' has clip_sample_range {limit:g}; it is above 0: get it again.")
    return {
        "steps": s["num_train_timesteps"],
        "target": TARGETS[s["prediction_type"]],
        "variance": VARIANCES[s["variance_type"]],
        "clip": s["clip_sample_range"] if s["clip_sample"] else None,
    }


def read_tokenizer(found: Published) -> Tokenizer:
    """The tokenizer of the pipeline.

    Raises:
      ValueError: it is missing or damaged.
    """
    words = tokenizer.read(found.folder / TOKENIZER)
    if words is None:
        raise ValueError(tokenizer.missing(found.folder / TOKENIZER))
    return words


def transform(found: Published) -> str:
    """The chain of transforms up to pixels, of variations."""
    return image_processor.read(found.preprocessor).transform if found.preprocessor else ""


def rows(model: Karlo) -> list[Row]:
    """The rename table of a pipeline."""
    table = [
        *clip.text_rows(model.text_tower(parent=None)),
        *norm("text/norm", "text_model.final_layer_norm"),
        *linear("text_proj", "text_projection", bias=False),
    ]
    table = _inside("text_encoder", table)
    if model.image is not None:
        image = clip.image_rows(model.image_tower(parent=None))
        image += linear("image_proj", "visual_projection", bias=False)
        table += _inside("image_encoder", image)
    if model.prior is not None:
        table += _inside("prior", prior_transformer.rows(model.make_prior(parent=None)), "prior/")
    table += _inside("text_proj", CONDITION_ROWS, "condition/")
    for part in ("decoder", "super_res_first", "super_res_last"):
        unet = model.make_unet(part, parent=None)
        table += unet_table.rows(unet, f"{part}/", f"{part}/", context=part == "decoder")
    return table


CONDITION_ROWS = [
    *same("image/nothing", "learned_classifier_free_guidance_embeddings"),
    *linear("image/condition", "clip_image_embeddings_project_to_time_embeddings"),
    *linear("image/tokens", "clip_extra_context_tokens_proj"),
    *linear("text_condition", "embedding_proj"),
    *linear("text_tokens", "encoder_hidden_states_proj"),
    *norm("text_norm", "text_encoder_hidden_states_norm"),
]


def _inside(folder: str, table: list[Row], ours: str = "") -> list[Row]:
    """A part's table, of tensors in its folder; with a prefix for our names."""

    def named(name: str) -> str:
        buffer = name.startswith(f"{BUFFERS}/")
        return f"{BUFFERS}/{ours}{name.removeprefix(f'{BUFFERS}/')}" if buffer else f"{ours}{name}"

    return [
        row._replace(
            ours=tuple(map(named, row.ours)), theirs=tuple(f"{folder}/{x}" for x in row.theirs)
        )
        for row in table
    ]


def published_config(model: Karlo) -> dict[str, Any]:
    """model_index.json for one of our models.

    Raises:
      ValueError: a model that neither pipeline can be.
    """
    if (model.prior is None) == (model.image is None):
        raise ValueError(
            f"A pipeline of diffusers has a prior ({TEXTS}) or an image tower ({VARIATIONS}): this "
            "model has both, or none."
        )
    kind = TEXTS if model.prior is not None else VARIATIONS
    parts = {name: list(pair) for name, pair in (PARTS | OWN[kind]).items()}
    return {"_class_name": kind, "_diffusers_version": "0.42.0", **dict(sorted(parts.items()))}


def complete_config(config: dict[str, Any], pretrained: Any) -> dict[str, Any]:
    """model_index.json says nothing else."""
    del pretrained
    return config


def published_files(pretrained: Any) -> dict[str, Any]:
    """The configs of the parts, name -> content."""
    model: Karlo = pretrained.model
    found = {f"text_encoder/{CONFIG}": _text_config(model, pretrained)}
    found |= {f"text_proj/{CONFIG}": _condition_config(model)}
    for part in ("decoder", "super_res_first", "super_res_last"):
        found[f"{part}/{CONFIG}"] = _unet_config(model, part)
    stages = ["decoder", "super_res"]
    if model.prior is not None:
        stages.append("prior")
        prior = model.make_prior(parent=None)
        found[f"prior/{CONFIG}"] = prior_transformer.published_config(prior)
    else:
        image = model.image_tower(parent=None).clone(embed_dim=model.embed_dim)
        found[f"image_encoder/{CONFIG}"] = clip_vision.published_config(image)
        given = clip_vision.published_preprocessor(image, pretrained.transform)
        found[f"feature_extractor/{PREPROCESSOR}"] = given
    for stage in stages:
        found[f"{stage}_scheduler/{SCHEDULER}"] = _scheduler(model.how(stage))
    return found


def _text_config(model: Karlo, pretrained: Any) -> Mapping[str, Any]:
    text = model.text_tower(parent=None)
    return {
        "model_type": "clip_text_model",
        "architectures": [PARTS["text_encoder"][1]],
        **encoder_config.write(text),
        "projection_dim": model.embed_dim,
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.length,
        **special_ids(pretrained),
    }


def _condition_config(model: Karlo) -> Mapping[str, Any]:
    return {
        "_class_name": PARTS["text_proj"][1],
        "clip_extra_context_tokens": model.image_tokens,
        "clip_embeddings_dim": model.embed_dim,
        "time_embed_dim": model.make_unet("decoder", parent=None).embedding_width,
        "cross_attention_dim": model.context_width,
    }


def _unet_config(model: Karlo, part: str) -> Mapping[str, Any]:
    kind, decodes = PARTS[part][1], part == "decoder"
    found = unet_table.config_of(model.make_unet(part, parent=None), kind)
    found["in_channels"] = COLORS if decodes else 2 * COLORS
    found["sample_size"] = model.image_size if decodes else model.large_size
    if decodes:
        found |= {"class_embed_type": "identity", "cross_attention_dim": model.context_width}
    return found


def _scheduler(how: Denoising) -> Mapping[str, Any]:
    """scheduler_config.json."""
    (target,) = [k for k, ours in TARGETS.items() if ours == how.target]
    (variance,) = [k for k, ours in VARIANCES.items() if ours == how.variance]
    return {
        "_class_name": "UnCLIPScheduler",
        "num_train_timesteps": how.steps,
        "prediction_type": target,
        "variance_type": variance,
        "clip_sample": how.clip is not None,
        "clip_sample_range": 1.0 if how.clip is None else how.clip,
        "beta_schedule": DENOISING["beta_schedule"],
    }
