"""Captions: which of an example's captions is used, and the prompt templates for names."""

UNNAMED = "(unnamed)"
# Short sentences around a name. `clip_7` is the subset that OpenAI found best for ImageNet
# (github.com/openai/CLIP, notebooks/Prompt_Engineering_for_ImageNet.ipynb); the others are ours.
TEMPLATES = {
    "plain": ("{}",),
    "photo": (
        "a photo of a {}",
        "a photo of the {}",
        "a close-up of a {}",
        "a picture of a {}",
        "a cropped photo of a {}",
        "a bright photo of a {}",
        "a dark photo of a {}",
    ),
    "drawing": (
        "a drawing of {}",
        "an emoji of {}",
        "an icon of {}",
        "a simple picture of {}",
        "{} as a small drawing",
        "a clip art of {}",
    ),
    "cifar": (
        "a photo of a {}",
        "a small photo of a {}",
        "a blurry photo of a {}",
        "a low resolution photo of a {}",
        "a tiny picture of the {}",
    ),
    "clip_7": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
}


def get_templates(templates):
    """The templates of a name in `TEMPLATES`, or the given list, checked.

    Raises:
      ValueError: an unknown name, or a template without exactly one `{}`.
    """
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            known = ", ".join(TEMPLATES)
            raise ValueError(f"There are no caption templates '{templates}': use one of {known}.")
        return TEMPLATES[templates]
    templates = tuple(templates)
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise ValueError(
                f"The caption template {template!r} has no {{}}, or several: write one where the "
                f"name goes, or use those of {', '.join(TEMPLATES)}."
            )
    if not templates:
        raise ValueError("The list of caption templates is empty: give at least one.")
    return templates


def fill(template, name):
    """The template with `{}` replaced by `name`; braces inside the name are kept."""
    return template.replace("{}", name, 1)


def prompt_ensemble(class_name, templates="plain"):
    """One prompt per template: the texts whose embeddings a zero-shot classifier averages.

    Source: Radford et al. 2021 (CLIP), section 3.1.4.
    """
    return [fill(template, class_name) for template in get_templates(templates)]


def as_text(value):
    """The caption as str; TFDS yields bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def captions_of(example, class_names=None):
    """The example's captions, or else its class name; raises ValueError if it has neither."""
    captions = [as_text(caption) for caption in example.get("captions", ())]
    captions = [caption for caption in captions if caption.strip()]
    if captions:
        return captions
    if class_names is not None and example.get("label") is not None:
        return [class_names[int(example["label"])]]
    raise ValueError(
        f"example {example_name(example)} has no captions, and no label with class names; "
        "give the source captions, or leave the caption step out"
    )


def foreign_names(example, languages):
    """The example's `names` in the given languages ('all': every language)."""
    pairs = zip(example.get("languages", ()), example.get("names", ()), strict=True)
    pairs = [(as_text(language), as_text(name)) for language, name in pairs]
    return [name for language, name in pairs if languages == "all" or language in languages]


def choose(captions, rng, templates=("{}",), template_p=1.0, extra=(), extra_p=0.0):
    """One caption, drawn at random.

    With probability `extra_p` it is one of `extra` (names in other languages), without a template;
    otherwise one of `captions`, with probability `template_p` in one of the templates.

    Args:
      captions: list of str, at least one.
      rng: np.random.Generator.
      templates: from `get_templates`.
      template_p, extra_p: probabilities, 0 to 1.
      extra: list of str, may be empty.
    """
    if extra and rng.random() < extra_p:
        return extra[rng.integers(len(extra))]
    caption = captions[rng.integers(len(captions))]
    if rng.random() < template_p:
        return fill(templates[rng.integers(len(templates))], caption)
    return caption


def example_name(example):
    """The name of an example in error messages: its key, path or number."""
    for field in ("key", "path", "example_id"):
        if field in example:
            return repr(example[field])
    return UNNAMED
