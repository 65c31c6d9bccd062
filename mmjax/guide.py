"""Guiding a sampler by a CLIP of noised images, towards the texts of a batch.

Source: Nichol et al. 2021 (arXiv 2112.10741), section 2.4.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from mmjax import pretrained
from mmjax.batch import Batch
from mmjax.number import check_finite
from mmjax.rerank import decoded
from mmjax.system import Variables

Guided = Callable[[Variables, Batch], tuple[Variables, dict[str, np.ndarray]]]


def guide(
    settings: Mapping[str, Any], tokenizer: Any, mesh: Mesh | None = None
) -> tuple[dict[str, Any], Guided]:
    """Settings for `System.sample`, and a function that adds to variables and batch what it reads.

    Without a CLIP in the settings, or where `clip_guidance` is 0, the function changes nothing.

    Args:
      settings: with `clip_guidance` above 0, the scale, also `clip`, the path of a `noised_clip`.
      tokenizer: of the system that samples; gives the texts of its batches.
      mesh: of its variables; None: the default device.

    Raises:
      ValueError: a scale without a CLIP, a CLIP without a scale, a scale below 0 or not finite,
        or a model of another kind.
    """
    settings = dict(settings)
    path = settings.pop("clip", "")
    scale = settings.pop("clip_guidance", None if path else 0.0)
    if scale is None:
        raise ValueError(
            f"sample.clip is '{path}' and sample.clip_guidance is not set: give the scale of its "
            "guidance, such as 2, or leave the CLIP out."
        )
    check_finite(scale, "sample.clip_guidance")
    if not scale:
        return settings, lambda variables, batch: (variables, batch)
    if scale < 0 or not path:
        raise ValueError(
            f"sample.clip_guidance is {scale:g} and sample.clip is '{path}': guidance by a CLIP "
            "takes a scale above 0 and the path of a 'noised_clip'."
        )
    loaded = pretrained.load(path, mesh=mesh)
    config = {k: x for k, x in loaded.config.items() if k != "name"}
    if loaded.config["name"] != "noised_clip":
        raise ValueError(
            f"'{path}' holds a '{loaded.config['name']}', and only a 'noised_clip' guides a "
            "sampler: train one with configs/noised_clip_emoji.py, or leave clip_guidance at 0."
        )
    words, length = loaded.need_tokenizer(), loaded.text_length

    def add(variables: Variables, batch: Batch) -> tuple[Variables, dict[str, np.ndarray]]:
        if "text" not in batch:
            raise ValueError(
                "A CLIP guides a sampler towards a text and the batch has none: give prompts, or "
                "leave clip_guidance at 0."
            )
        texts = decoded(tokenizer, batch)
        text, mask, _ = words.rows(texts, length)
        mask = np.asarray(mask, bool) & np.asarray([bool(x) for x in texts])[:, None]
        rows = {"guide_text": np.asarray(text, np.int32), "guide_text_mask": mask}
        return {**variables, "guide": loaded.variables}, {**batch, **rows}

    return {**settings, "clip_guidance": scale, "clip": json.dumps(config)}, add
