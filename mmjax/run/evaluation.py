"""The Runner: how evaluators and the report read sources and call a run's model."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax import batch as batches
from mmjax import sharding
from mmjax.data import pipeline
from mmjax.data.prefetch import to_device
from mmjax.data.transforms import parse as transforms
from mmjax.decode.generate import Generated
from mmjax.guide import guide
from mmjax.layers.sown import cross_gradients, sown_weights
from mmjax.losses.captioning import token_losses
from mmjax.rerank import chooser
from mmjax.run.experiment import Experiment, open_source
from mmjax.run.kept import Kept
from mmjax.run.member import Member
from mmjax.run.open_run import open_run
from mmjax.system import (
    Outputs,
    Term,
    Variables,
    Weighted,
    average,
    evaluation_context,
    memory_of,
    row_keys,
    seed_data,
    variables,
)
from mmjax.workdir.checksum import digest

Rows = Mapping[str, np.ndarray]


class Runner:
    """Everything that an evaluator needs from a run except the variables.

    Methods take `variables` (as `model.apply` does) and this process's rows of a batch, and return
    NumPy arrays for the rows of all processes.

    Attributes:
      tokenizer: has `encode(texts, length) -> (text [B, L], text_mask [B, L])`; None: no text.
      text_length: L.
      batch_size: examples per call.
      window: longest prompt plus continuation in tokens; 0 if the model generates no text.
      codes: size of the codebook of an image tokenizer; 0 for another model.
      class_names: of the model's logits, as the training source names them; None: unknown.
      spec: of the arrays that model and loss read.
      rows: the slice of a batch's rows that this process reads.
      progress: called with (what, done, total).
      samples: the folder of what evaluators keep of samples.
      step: the number of updates of the variables that are evaluated.
      kept: outputs of whole splits that several evaluators or the report read.
    """

    def __init__(self, run: Experiment, workdir: Path, progress: Callable[[str, int, int], None]):
        self.tokenizer, self.batch_size = run.tokenizer, run.config.batch_size
        self.text_length = run.spec["text"].shape[1] if "text" in run.spec else 0
        self.window = getattr(run.model, "window", 0)
        self.codes = getattr(run.model, "codes", 0)
        self.class_names, self.spec = run.class_names, run.spec
        self.progress, self.samples, self.step = progress, workdir / "samples", 0
        self.kept = Kept()
        self._run, self._workdir = run, workdir
        self._members: dict[Path, Member] = {}
        self._placed, self._whole = sharding.batch_sharding(run.mesh), sharding.named(run.mesh)
        self._share = sharding.batch_share(run.mesh)
        index, count = self._share
        rows = self.batch_size // count
        self.rows = slice(index * rows, (index + 1) * rows)
        self._forward = functools.cache(self._make_forward)
        self._collect = jax.jit(lambda _, batch: batch, out_shardings=self._whole)
        self._keys = jax.jit(lambda seed, rows: row_keys(jax.random.wrap_key_data(seed), rows))

    def open_member(self, workdir: str) -> Member:
        """Another run of an ensemble, with the newest checkpoint that it has at the first call.

        Raises:
          ValueError: a workdir without a checkpoint, or this run's own.
        """
        path = Path(workdir).resolve()
        if path == self._workdir.resolve():
            raise ValueError(
                f"The member '{workdir}' is the run itself, which is part of the ensemble anyway: "
                "name other runs."
            )
        if path not in self._members:
            run, found, step = open_run(Path(workdir))
            runner = Runner(run, Path(workdir), self.progress)
            self._members[path] = Member(runner, found, step, digest(found))
        return self._members[path]

    def open_source(self, config: Mapping[str, Any]) -> Any:
        """The source that a config describes."""
        return open_source(config, self._workdir)

    def batches(self, source: Any, spec: str, batch_size: int) -> Iterator[Rows]:
        """This process's rows of each batch, in the order of the source.

        The last one is padded with rows whose example_id is -1; in all others example_id is the
        index in the source.

        Args:
          spec: transforms, as one string.
        """
        transform = transforms.parse(spec, tokenizer=self.tokenizer, class_names=source.class_names)
        return pipeline.eval_batches(
            source,
            transform,
            batch_size=batch_size,
            process_index=self._share[0],
            process_count=self._share[1],
        )

    def apply(self, variables: Variables, batch: Rows, outputs: Sequence[str]) -> Rows:
        """Those of the named outputs that the model has.

        `token_losses` [B, L-1], -log p in nats of each token after the first, is computed on the
        device from `text_logits`, which are too large to fetch.
        """
        found = self._on_mesh(self._forward(tuple(outputs)), variables, batch)
        return jax.tree.map(np.asarray, dict(found))

    def output_names(self, batch: Rows, modalities: Sequence[str]) -> list[str]:
        """Names of the model's outputs for some modalities of a batch; computes nothing.

        Text that the batch lacks is that of the model's spec: an evaluator may encode its own.

        Raises:
          ValueError: the batch has none of the modalities.
        """
        given = {k: v for k, v in {**self.spec, **batch}.items() if k.split("_")[0] == "text"}
        given |= batch
        given = {k: v for k, v in given.items() if batches.modality_of(k) in modalities}
        if not given:
            raise ValueError(
                f"This evaluation needs one of {', '.join(modalities)} and its transform gives "
                f"{', '.join(sorted(batch))}: change its transform or its source."
            )
        abstract = variables(self._run.params, self._run.state.memory)
        with jax.set_mesh(self._run.mesh):
            return sorted(jax.eval_shape(self._run.model.apply, abstract, given))

    def _make_forward(self, names: tuple[str, ...]) -> Callable[[Variables, Rows], Outputs]:
        @functools.partial(jax.jit, out_shardings=self._whole)
        def forward(variables, batch):
            outputs = dict(self._run.model.apply(variables, batch))
            if "token_losses" in names and "text_logits" in outputs:
                outputs["token_losses"] = token_losses(outputs["text_logits"], batch["text"])
            return {name: outputs[name] for name in names if name in outputs}

        return forward

    def losses(self, variables: Variables, batch: Rows) -> dict[str, tuple[float, float]]:
        """Each term of the system's loss: its mean over the batch's real rows, and their weight.

        The variables are their own teacher. All randomness follows from `example_id` (see
        `Context.rng`), so that a second call, or one after a resume, is bit-identical.
        """
        batches.check(batches.to_device_dtypes(batch), self.spec)
        found = self._on_mesh(self._losses, variables, batch)
        return {k: (float(mean), float(weight)) for k, (mean, weight) in found.items()}

    @functools.cached_property
    def _losses(self):
        system = self._run.system

        @functools.partial(jax.jit, out_shardings=self._whole)
        def losses(variables, batch):
            context = evaluation_context(batch, self._run.config.total_steps, memory_of(variables))
            real = batch["example_id"] != -1
            batch = {k: x & real if k.endswith("_present") else x for k, x in batch.items()}
            if system.corrupt is not None:
                batch = system.corrupt(batch, context)
            outputs = self._run.model.apply(variables, batch)
            if self._run.config.ema.teacher:
                context = context._replace(teacher=outputs)
            terms = system.loss(outputs, batch, context)
            return {k: _real_mean(term, real) for k, term in terms.items()}

        return losses

    def attention(self, variables: Variables, batch: Rows) -> np.ndarray | None:
        """Attention weights [layers, B, heads, L, L] of the image tower; None if it has none."""
        sown = self._on_mesh(self._sow, variables, {"image": batch["image"]})
        return sown_weights(sown.get("intermediates", {}))

    @functools.cached_property
    def _sow(self):
        def sow(variables, batch):
            return self._run.model.apply(variables, batch, mutable=["intermediates"])[1]

        return jax.jit(sow, out_shardings=self._whole)

    def match_gradients(self, variables: Variables, batch: Rows) -> Rows | None:
        """How a model that matches images and texts attends from one to the other.

        Returns:
          `probability` [B] that each pair matches; `weights` [layers, B, heads, L, S] of the
          cross-attention that it depends on; `gradients`, of the logit of a match with respect to
          the weights. None for a model without `match_logits` or cross-attention.
        """
        if "match_logits" not in self.output_names(batch, ("image", "text")):
            return None
        found = jax.device_get(self._on_mesh(self._match_gradients, variables, batch))
        probability, weights, gradients = found
        if not gradients:
            return None
        stack = max(gradients, key=lambda path: np.abs(gradients[path]).max())
        found = {"weights": weights[stack], "gradients": gradients[stack]}
        return {"probability": probability, **found}

    @functools.cached_property
    def _match_gradients(self):
        def gradients(variables, batch):
            def score(outputs):
                logits = outputs["match_logits"]
                return logits[:, 1].sum(), jax.nn.softmax(logits, -1)[:, 1]

            return cross_gradients(self._run.model.apply, variables, batch, score)

        return jax.jit(gradients, out_shardings=self._whole)

    def generate(
        self, settings: Mapping[str, Any], seed: int = 0
    ) -> Callable[[Variables, Rows], Generated]:
        """A function that generates one text per row with these decoding settings.

        `text` and `text_mask` of a batch, if it has them, are prompts.

        Raises:
          ValueError: the system generates no text, or a setting is wrong.
        """
        generate = self._hook("generate", "generates no text")(self.tokenizer, settings)

        def rows(variables, batch):
            return generate(variables, batch, seed)

        return functools.partial(self._on_mesh, rows)

    def score(self, texts: Sequence[str]) -> Callable[[Variables, Rows], np.ndarray]:
        """[B, C]: log p of each of C texts after each row's prompt.

        Raises:
          ValueError: the system generates no text, or there are no texts.
        """
        score = self._hook("score", "generates no text")(self.tokenizer, texts)
        return functools.partial(self._on_mesh, score)

    def sample(
        self, settings: Mapping[str, Any]
    ) -> Callable[[Variables, Rows, int], Mapping[str, np.ndarray]]:
        """A function (variables, batch, seed) that samples images or whatever else the system does.

        A row's sample follows from the seed and its `example_id` alone. Of several candidates a
        CLIP chooses: `rerank` of the settings, see mmjax/rerank.py; another one may guide the
        sampler, see mmjax/guide.py.

        Raises:
          ValueError: the system samples nothing, or no CLIP is at a path.
        """
        sample = self._hook("sample", "samples nothing")
        settings, choose = chooser(settings, self.tokenizer)
        settings, add = guide(settings, self.tokenizer, self._run.mesh)

        def rows(given, batch):
            variables, seed = given
            found = sample(variables, batch, self._keys(seed, batch["example_id"]), settings)
            return self._collect(None, dict(found))

        def sampled(variables: Variables, batch: Rows, seed: int) -> Rows:
            variables, given = add(variables, batch)
            found = self._on_mesh(rows, (variables, seed_data(seed)), given)
            return choose(jax.tree.map(np.asarray, found), self.gather(batch))

        return sampled

    def gather(self, batch: Rows) -> Rows:
        """This process's rows -> those of all processes."""
        if self._share[1] == 1:
            return batch
        found = jax.tree.map(np.asarray, self._on_mesh(self._collect, None, batch))
        if "example_id" in found:
            found["example_id"] = batches.example_ids(found["example_id"])
        return found

    def _hook(self, name: str, problem: str) -> Callable[..., Any]:
        hook = getattr(self._run.system, name)
        if hook is None:
            raise ValueError(
                f"The system '{self._run.config.model.name}' {problem}: remove the evaluations "
                "that need it from config.evals."
            )
        return hook

    def _on_mesh(self, function, variables, batch):
        with jax.set_mesh(self._run.mesh):
            return function(variables, to_device(batch, self._placed))


def _real_mean(term: Term, real: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A term's mean over the real rows of a padded batch, and their weight."""
    count = real.sum(dtype=jnp.float32)
    if not isinstance(term, Weighted):
        if not term.ndim:
            return term, count
        term = Weighted(term, real)
    weight = jnp.where(real, term.weight.astype(jnp.float32), 0.0)
    return average(Weighted(term.value, weight))[0], weight.sum()
