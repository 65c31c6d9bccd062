"""Whether a dual encoder prefers a caption to the same one with something exchanged."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.transforms.captions import as_text
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.metrics.compositionality import winoground_scores
from mmjax.evals.outputs import embed_texts
from mmjax.system import Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionSwaps(Evaluator):
    """Accuracy of images among their own and a swapped caption, and Winoground's scores of groups.

    Metrics: `accuracy`, the fraction of the examples whose own caption has the larger cosine, and
    `accuracy/KIND` of each kind of swap; chance is 1/2. Of the `groups`, pairs of examples whose
    captions are the swaps of each other: `text_score`, `image_score` and `group_score`, and
    `group_score/KIND`; see `winoground_scores`.

    The source is of kind `caption_swaps` or `scene_relations`.
    """

    kind = "caption_swaps"

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {"image_embed": ("image",), "text_embed": ("text",)}

    def _check_source(self, source: Any) -> None:
        if "swapped_captions" not in source.meta(0):
            raise ValueError(
                f"{source.name} has no swapped captions: give the evaluator a source of kind "
                "'caption_swaps' of it."
            )

    def run(self, variables: Variables) -> Results:
        source = self._open(self.source)
        outputs = self._embed(variables, source, ["image_embed"])
        metas = [source.meta(int(i)) for i in outputs["example_id"]]
        pairs = [[as_text(m[k][0]) for k in ("captions", "swapped_captions")] for m in metas]
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        place = {text: i for i, text in enumerate(texts)}
        embed = embed_texts(self.runner, variables, texts)
        image = outputs["image_embed"]
        own, other = (embed[[place[pair[i]] for pair in pairs]] for i in range(2))
        right = (image * own).sum(axis=1) > (image * other).sum(axis=1)
        kinds = np.asarray([m["swap_kind"] for m in metas])
        yield "accuracy", float(right.mean())
        for kind in sorted(set(kinds.tolist())):
            yield f"accuracy/{kind}", float(right[kinds == kind].mean())
        members: dict[str, list[int]] = collections.defaultdict(list)
        for i, meta in enumerate(metas):
            members[meta["group"]].append(i)
        groups = [found for name, found in members.items() if name and len(found) == 2]
        yield "groups", float(len(groups))
        if groups:
            pair = np.asarray(groups)  # [G, 2]
            scores = np.einsum("gid,gjd->gij", own[pair], image[pair])
            yield from winoground_scores(scores).items()
            of_kind = kinds[pair[:, 0]]
            for kind in sorted(set(of_kind.tolist())):
                found = winoground_scores(scores[of_kind == kind])
                yield f"group_score/{kind}", found["group_score"]
        yield from left_out(len(source) - len(metas))
