r"""A small AST from scratch on ESC-10, tested on one of its 5 folds.

    python -m mmjax.train --config=configs/ast_esc10.py --workdir=runs/ast_esc10 \
        --config.data.train.root=ESC-10.tar

Setting: the front end of AST (Gong et al. 2021, arXiv 2104.01778, section 2; 128 bins of Kaldi's
filter bank) on 400 sounds of 5 seconds (github.com/karolpiczak/ESC-10: its archive or folder is the
root, needed once), with patches that do not overlap and 6 layers of width 128.
Protocol: --config.evals.test.source.split=foldN holds fold N out and trains on the other four; the
result of ESC-10 is the mean over its 5 folds. 400 sounds are few for a transformer from scratch.
Expected: see experiments/audio/README.md, with a baseline.
"""

from mmjax.config import defaults

BANK = "kaldi_fbank(512)"
SECONDS = "waveform(5.135)"


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 32
    config.total_steps = 600
    config.log_every = 20
    config.eval_every = 200
    config.checkpoint.every = 300

    sounds = {"kind": "tfds", "name": "esc10", "root": "data/esc10.tar"}
    config.data.train = sounds | {"split": ""}
    config.evals.test = {
        "kind": "classification",
        "source": sounds | {"split": "fold5", "root": config.data.train.get_ref("root")},
        "transform": f"{SECONDS} | {BANK} | label",
        "modalities": ("audio",),
    }
    config.data.train.split = "all-" + config.evals.test.source.get_ref("split")

    config.data.cached_transform = SECONDS
    config.data.transform = (
        f"time_shift(0.3) | add_noise((10, 40), p=0.5) | {BANK} | spec_augment(0.2, 0.25) | label"
    )
    config.model = {
        "name": "audio_classifier",
        "width": 128,
        "depth": 6,
        "heads": 4,
        "mlp_dim": 256,
        "frames": 512,
        "bins": 128,
        "patch_size": (16, 16),
        "stride": (16, 16),
        "dropout": 0.1,
        "stochastic_depth": 0.1,
        "num_classes": 10,
    }
    config.loss = {"label_smoothing": 0.1}
    config.loss_weights = {"classification": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 0.1,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
    }
    return config
