"""Interactive segmentation: IoU by the number of clicks."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mmjax.evals.evaluator import Evaluator, Results
from mmjax.evals.metrics.mask_overlap import iou_by_clicks
from mmjax.system import Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clicks(Evaluator):
    """Mean IoU of the mask of each object after 1, 2, ... clicks of a simulated user, `miou_K`, and
    how many clicks an IoU needs, `noc_GOAL`: see `iou_by_clicks`.

    A click is in the middle of what is wrong, the first in the middle of the object. Of the three
    masks for the first click that of the highest predicted IoU counts. The transform gives masks.
    """

    kind = "clicks"

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {"click_iou": ("image", "masks", "boxes")}

    def run(self, variables: Variables) -> Results:
        source, found, done = self._open(self.source), [], 0
        for batch in self._batches(source):
            iou = self.runner.apply(variables, batch, ["click_iou"])["click_iou"]
            rows = self.runner.gather({k: batch[k] for k in ("boxes_mask", "example_id")})
            found.append(iou[rows["boxes_mask"] & (rows["example_id"] != -1)[:, None]])
            done = min(len(source), done + self.runner.batch_size)
            self.runner.progress("clicks", done, len(source))
        every = np.concatenate(found)
        if not len(every):
            raise ValueError(
                f"{source.name} shows no object: a 'clicks' evaluation needs masks of some."
            )
        yield from iou_by_clicks(every).items()
        yield "objects", float(len(every))
