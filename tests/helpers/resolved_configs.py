"""The fully resolved config of every experiment, defaults included, as stored in tests/configs/.

    python tests/helpers/resolved_configs.py      # rewrite them; then read the diff

So a review shows which experiments a changed default affects.
"""

import dataclasses
import json
import sys
import types
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "configs"
# Fine-tuning configs take their model as an argument.
NAMES = sorted(
    f.stem for f in (ROOT / "configs").glob("*.py") if not f.stem.startswith("finetune_")
)
# Methods of a model that build a part of it from a section of the config.
PARTS = ("image_tower", "text_tower", "multimodal_tower", "text_encoder", "text_decoder")
PARTS += ("audio_encoder",)
PARTS += ("image_codebook", "text_embed", "patches", "resample", "main_model", "question_model")


def resolved(name: str) -> str:
    """The JSON text: config, every field of the model and its parts, optimizer, evaluators, and
    the number of parameters."""
    import jax

    from mmjax import config as configs
    from mmjax.evals.evaluators import make_evaluators
    from mmjax.optim.optimizer import Settings
    from mmjax.run import experiment
    from mmjax.run.evaluation import Runner

    config = configs.load(str(ROOT / "configs" / f"{name}.py"), ())
    tokenizer = types.SimpleNamespace(bos_id=0, eos_id=1, pad_id=0, vocab_size=2, end_ids=(1,))
    tokenizer.token_id = lambda token: None
    tokenizer.pieces = lambda text: (list(text.encode()), [])
    run = experiment.build(config, tokenizer, jax.devices()[:1])
    evaluators = make_evaluators(config.evals, Runner(run, ROOT, lambda *args: None))
    sizes = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in run.params.items()}
    found = {
        "config": json.loads(configs.to_json(config)),
        "model": _fields(run.model),
        "optim": dataclasses.asdict(Settings(**config.optim)),
        "evals": {k: e.settings() for k, e in evaluators.items()},
        "spec": {k: f"{v.dtype}{list(v.shape)}" for k, v in run.spec.items()},
        "parameters": {"all": sum(sizes.values()), **sizes},
    }
    return json.dumps(found, indent=1, sort_keys=True, default=str) + "\n"


def _fields(module) -> dict:
    """Every field of a module, and of the parts that its methods build."""
    fields = {
        f.name: getattr(module, f.name)
        for f in dataclasses.fields(module)
        if f.name not in ("parent", "name")
    }
    for part in PARTS:
        if hasattr(module, part):
            fields[f"{part}()"] = _fields(getattr(module, part)(parent=None))
    return {"class": type(module).__name__} | {k: _plain(v) for k, v in fields.items()}


def _plain(value):
    if hasattr(value, "items"):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def main() -> None:
    sys.path.insert(0, str(ROOT))  # configs build on each other
    FOLDER.mkdir(exist_ok=True)
    for stale in FOLDER.glob("*.json"):
        if stale.stem not in NAMES:
            stale.unlink()
    for name in NAMES:
        (FOLDER / f"{name}.json").write_text(resolved(name))
        print(f"written: tests/configs/{name}.json", flush=True)


if __name__ == "__main__":
    main()
