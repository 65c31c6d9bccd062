"""What a saved folder says besides the settings of its model: class names, ids of special tokens.

`pretrained` is a `mmjax.pretrained.Pretrained`.
"""

from typing import Any

from mmjax.weights import published, tokenizer


def generation(pretrained: Any) -> dict[str, Any]:
    """generation_config.json of a language model."""
    return {**pretrained.generation, **special_ids(pretrained)}


def complete(config: dict[str, Any], pretrained: Any) -> dict[str, Any]:
    """config.json with class names, and the tokenizer's special tokens in the text section."""
    classes = pretrained.config.get("num_classes")
    if classes:
        config |= published.labels(pretrained.class_names, classes)
    part = config.get("text_config", config)
    part |= special_ids(pretrained)
    return config


def special_ids(pretrained: Any) -> dict[str, Any]:
    """The ids of special tokens: of the tokenizer, and else of the folder it was loaded from."""
    words = pretrained.tokenizer
    ids = {k: x for k, x in pretrained.kept.items() if k in published.KEPT}
    for name in (f"{role}_id" for role in tokenizer.ROLES):
        if pretrained.generation.get(name) is not None:
            ids[name] = pretrained.generation[name]
    return ids if words is None else ids | tokenizer.generation_ids(words)
