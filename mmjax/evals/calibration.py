"""Evaluators of how far a classifier's probabilities can be trusted."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.evals.classification import Classification, ZeroShot
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.metrics.calibration import BINS
from mmjax.evals.metrics.ensemble import ensemble_logits, ensemble_metrics
from mmjax.evals.metrics.selective import aurc
from mmjax.evals.metrics.uncertainty import Fitted, confidences, fit, uncertainty_metrics
from mmjax.evals.outputs import text_outputs
from mmjax.evals.zero_shot import classification_metrics
from mmjax.run.member import Member
from mmjax.system import Variables

_OF_METRICS = ("fit_source", "coverage", "bins")  # settings that change no score


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated(Evaluator):
    """Base class of both evaluators below.

    Metrics: those of a classification; `nll`, `brier`, `ece`, `ece_adaptive`, `aurc` and
    `excess_aurc` (see `uncertainty_metrics`). With a `fit_source` also `temperature`, the same
    metrics after it as `calibrated/...`, and, with the threshold that keeps `coverage` of the
    `fit_source`: `kept`, the fraction of this source that it keeps, and `kept_top1`, its accuracy.
    With `members` all of these are of the mean probability of an ensemble, and the metrics of
    `ensemble_metrics` are added: what its members disagree about.

    Settings:
      fit_source: examples that are neither trained on nor tested: temperature and threshold are
        fitted there, and nothing else is.
      coverage: the fraction of examples that should get an answer.
      bins: of the calibration errors.
      members: workdirs of further runs, such as other seeds, of which each is evaluated with its
        newest checkpoint, which the fingerprint of the results knows; they may have other
        architectures, and have the same classes.
    """

    fit_source: Mapping[str, Any] | None = None
    coverage: float = 0.8
    bins: int = BINS
    members: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if self.fit_source == self.source:
            raise ValueError(
                f"A '{self.kind}' has its fit_source as source too: fit the temperature on other "
                "examples than those it is reported on."
            )
        if not 0 < self.coverage <= 1 or self.bins < 1:
            raise ValueError(
                f"A '{self.kind}' has the coverage {self.coverage} and {self.bins} bins: use a "
                "coverage above 0 and up to 1, and at least one bin."
            )

    def settings(self) -> dict[str, Any]:
        given = super().settings()
        if not self.members:  # the fingerprint of results from before there were ensembles
            del given["members"]
            return given
        return given | {"members": [each.identity for each in self._opened().values()]}

    def _opened(self) -> dict[str, Member]:
        """The members by their workdirs; each is opened once.

        Raises:
          ValueError: a member twice, also under two names.
        """
        opened = {workdir: self.runner.open_member(workdir) for workdir in self.members}
        names: dict[str, str] = {}
        for workdir, member in zip(self.members, map(opened.get, self.members)):
            if member.digest in names:
                raise ValueError(
                    f"The members '{names[member.digest]}' and '{workdir}' have the same "
                    "parameters: give each run once, or its part of the mean would be double."
                )
            names[member.digest] = workdir
        return opened

    def check(self) -> dict[str, Any]:
        opened = super().check()
        for member in self._opened().values():
            dataclasses.replace(self, runner=member.runner, members=()).check()
        return opened

    def own_scores(
        self, variables: Variables, config: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Logits `[N, C]` of one model, labels `[N]` and the class names."""
        raise NotImplementedError

    def all_scores(
        self, variables: Variables, config: Mapping[str, Any] | None = None
    ) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
        """Logits `[N, C]` of this model and of each member, labels `[N]` and the class names.

        Raises:
          ValueError: a member with other classes.
        """
        logits, labels, names = self.own_scores(variables, config)
        every = [logits]
        for workdir, member in self._opened().items():
            logits, _, other = self._member_scores(variables, member, config or self.source)
            if list(other) != list(names):
                raise ValueError(
                    f"The member '{workdir}' has the classes {', '.join(other[:5])} ... and this "
                    f"run {', '.join(names[:5])} ...: an ensemble has the same ones, in one order."
                )
            every.append(logits)
        return every, labels, names

    def _member_scores(
        self, variables: Variables, member: Member, config: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Its `own_scores`, once for all that read them while these variables are evaluated."""
        alone = dataclasses.replace(self, runner=member.runner, members=())
        reads = {k: v for k, v in alone.settings().items() if k not in _OF_METRICS}
        return self._once(
            variables,
            "member",
            lambda: alone.own_scores(member.variables, config),
            **{**reads, **member.identity, "source": config},
        )

    def scores(
        self, variables: Variables, config: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Logits `[N, C]` of the model, or of the ensemble, labels `[N]` and the class names."""
        every, labels, names = self.all_scores(variables, config)
        return ensemble_logits(every), labels, names

    def doubts(self, every: Sequence[np.ndarray], labels: np.ndarray) -> Results:
        """Yield the metrics of other uncertainties than that of the probability."""
        if len(every) > 1:
            yield from ensemble_metrics(every, labels).items()

    def fitted(self, variables: Variables) -> Fitted | None:
        """What the `fit_source` gives; None without one."""
        if self.fit_source is None:
            return None
        logits, labels, _ = self.scores(variables, self.fit_source)
        return fit(logits, labels, self.coverage)

    def run(self, variables: Variables) -> Results:
        every, labels, _ = self.all_scores(variables)
        logits = ensemble_logits(every)
        yield from classification_metrics(logits, labels).items()
        yield from uncertainty_metrics(logits, labels, self.bins).items()
        yield from self.doubts(every, labels)
        fitted = self.fitted(variables)
        if fitted is not None:
            yield "temperature", fitted.temperature
            calibrated = np.asarray(logits, np.float64) / fitted.temperature
            for name, value in uncertainty_metrics(calibrated, labels, self.bins).items():
                yield f"calibrated/{name}", value
            confidence, right = confidences(calibrated, labels)
            kept = confidence >= fitted.threshold
            yield "kept", float(kept.mean())
            if kept.any():
                yield "kept_top1", float(right[kept].mean())
        yield from left_out(len(self._open(self.source)) - len(labels))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration(Calibrated, Classification):
    """Calibration of a model with a classification head; see `Calibrated`.

    Settings:
      evidential: the model was trained with `config.loss.evidential`: its probabilities are the
        mean of the Dirichlet distribution. Also gives `vacuity`, the mean of C / S, its uncertainty
        of having no evidence, and `aurc_vacuity`, with that in place of the probability (Sensoy et
        al. 2018, arXiv 1806.01768, equation 1).
    """

    kind = "calibration"
    evidential: bool = False

    def own_scores(
        self, variables: Variables, config: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Logits `[N, C]`, labels `[N]` and the class names."""
        logits, labels, names = Classification.scores(self, variables, config)
        # log(1 + exp(z)): of the Dirichlet's concentrations, see losses/evidential.py.
        return (np.logaddexp(0, logits) if self.evidential else logits), labels, names

    def doubts(self, every: Sequence[np.ndarray], labels: np.ndarray) -> Results:
        yield from super().doubts(every, labels)
        if self.evidential:
            alpha = np.exp(np.asarray(every, np.float64))
            vacuity = (alpha.shape[-1] / alpha.sum(axis=-1)).mean(axis=0)
            yield "vacuity", float(vacuity.mean())
            yield "aurc_vacuity", aurc(-vacuity, ensemble_logits(every).argmax(axis=1) == labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShotCalibration(Calibrated, ZeroShot):
    """Calibration of zero-shot probabilities, softmax of the cosines times the model's
    `logit_scale`; see `Calibrated`."""

    kind = "zero_shot_calibration"

    def own_scores(
        self, variables: Variables, config: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Logits `[N, C]`, labels `[N]` and the class names."""
        cosines, labels, names = ZeroShot.scores(self, variables, config)
        scale = text_outputs(self.runner, variables, names[:1], ["logit_scale"])["logit_scale"]
        return cosines * np.float32(scale), labels, names
