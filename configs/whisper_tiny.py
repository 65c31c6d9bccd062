r"""Whisper tiny, 37 million parameters, on 680,000 hours of speech as in the paper.

    python -m mmjax.train --config=configs/whisper_tiny.py --workdir=runs/whisper_tiny \
        --config.data.train.root=DIR --config.tokenizer.path=WHISPER

Setting: Radford et al. 2022 (arXiv 2212.04356), tables 17 and 18: 2^20 updates of batch 256, AdamW,
a learning rate that depends on the size, 2,048 steps of warmup, then linear to 0. The paper's data
are not public: DIR has recordings of up to 30 seconds and their texts in captions.jsonl. Here they
are English, without timestamps and without the text before them: other languages and translation
are further parts of a mixture, each with its own `transcript`. WHISPER is a published folder, for
its tokenizer. Published weights of this size: openai/whisper-tiny (table 1 counts 39 million with
the fixed positions of the encoder).
"""

from mmjax.config import defaults

SECONDS, MELS, WORDS, VOCABULARY = 30, 80, 448, 51_865


def whisper(width, depth, learning_rate, remat="none"):
    """The config of a Whisper of this size."""
    config = defaults()
    config.batch_size = 256
    config.total_steps = 2**20
    config.log_every = 100
    config.checkpoint.every = 5000
    config.data.train = {"kind": "recordings", "root": "data/speech_680k"}
    config.data.transform = features() + f" | first_caption | transcript({WORDS})"
    config.data.num_threads = 32
    config.tokenizer = {"kind": "pretrained", "path": "data/whisper-tiny"}
    # Heads of 64.
    stack = {"depth": depth, "heads": width // 64, "mlp_dim": 4 * width, "remat": remat}
    config.model = {
        "name": "whisper",
        "dtype": "bfloat16",
        "audio": {"mels": MELS, "length": 50 * SECONDS, "width": width, **stack},
        "text": {"vocab_size": VOCABULARY, "width": width, "length": WORDS, "decoder": stack},
    }
    config.loss_weights = {"captioning": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": learning_rate,
        "schedule": "linear",
        "warmup_steps": 2048,
        "b2": 0.98,
        "eps": 1e-6,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
    }
    return config


def features():
    """The transforms from a file to the features of 30 seconds."""
    return f"waveform({SECONDS}) | whisper_mel({MELS})"


def get_config():
    """The config of this experiment."""
    return whisper(384, 4, 1.5e-3)
