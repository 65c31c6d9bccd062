"""The loss of all systems whose model gives `logits` of classes."""

from collections.abc import Callable

from mmjax.batch import Batch
from mmjax.losses.classification import check_evidential, classification_loss
from mmjax.schedule import Schedule, schedule
from mmjax.system import Context, Outputs, Terms


def classification(
    label_smoothing: float = 0.0, independent: bool = False, evidential: Schedule | None = None
) -> Callable[..., Terms]:
    """The loss function for these settings of `config.loss`; `evidential` may be a schedule."""
    check_evidential(evidential, label_smoothing, independent)

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        weight = None if evidential is None else schedule(evidential, context.step)
        return classification_loss(outputs["logits"], batch, label_smoothing, independent, weight)

    return loss
