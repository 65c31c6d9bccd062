r"""A GPT of 0.8 million parameters on the characters of Shakespeare's plays.

    python -m mmjax.train --config=configs/char_gpt.py --workdir=runs/char_gpt
    ... --config.data.train.file=tinyshakespeare.txt     # the text of the published loss

Setting: github.com/karpathy/nanoGPT, config/train_shakespeare_char.py with the README's options for
a CPU: 4 layers, 4 heads, width 128, 64 characters, batch 12, 2000 iterations, no dropout and no
biases; its README reports a validation loss of 1.88 nats, the mean of 20 batches, of
github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt. The default is the same nine plays
from a package (1,115,394 characters, downloaded once; 98.7 % of the lines are the same). The last
10 % are held out; ours is the loss over all of them, in windows that do not overlap.
Differences: layer norms keep their biases, the table of positions has one row more (the last
character of a window is only predicted), and three special tokens never occur.
Expected, with three seeds: see experiments/char_gpt.md.
"""

from mmjax.config import defaults

CONTEXT = 64  # characters that a prediction can see


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 12
    config.total_steps = 2000
    config.log_every = 20
    config.eval_every = 250
    config.checkpoint.every = 1000

    windows = {"kind": "text_windows", "length": CONTEXT + 1}
    config.data.train = windows | {"file": "shakespeare", "start": 0.0, "stop": 0.9}
    config.data.transform = f"running_text({CONTEXT + 1})"
    config.tokenizer = {"kind": "train_characters"}

    config.model = {
        "name": "language_model",
        "text": {
            "vocab_size": 68,  # the text's 65 characters and three special tokens
            "width": 128,
            "length": CONTEXT + 1,
            "decoder": {
                "depth": 4,
                "heads": 4,
                "mlp_dim": 512,
                "use_bias": False,
                "epsilon": 1e-5,
            },
        },
    }
    config.loss_weights = {"captioning": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 100,
        "end_learning_rate_fraction": 0.1,
        "b2": 0.99,
        "weight_decay": 0.1,
        "weight_decay_include": ("text/embed/.*", "text/decoder/position/.*"),
        "grad_clip_norm": 1.0,
    }
    held_out = {"file": config.data.train.get_ref("file"), "start": 0.9, "stop": 1.0}
    config.evals.validation = {
        "kind": "perplexity",
        "source": windows | held_out | {"stride": CONTEXT},
        "transform": f"running_text({CONTEXT + 1})",
        "modalities": ("text",),
    }
    config.validation = ("validation",)
    return config
