r"""Fine-tune a Whisper on a folder of your own recordings and their texts.

    python -m mmjax.train --config=configs/finetune_whisper.py:WEIGHTS --workdir=runs/mine \
        --config.data.train.source.root=RECORDINGS

WEIGHTS is a published folder (of transformers, of openai's tensors or CTranslate2), or the workdir
of a run; RECORDINGS is a folder with audio files of at most 30 seconds and captions.jsonl,
metadata.csv or another file of mmjax/data/sources/recordings.py. A tenth of the recordings is held
out, and the word error rate on it is measured before and after training.

    ... --config.lora.targets="('.*/attention/.*/kernel',)" --config.optim.learning_rate=1e-3
    ... --config.optim.freeze="('audio/.*',)"                        # frozen encoder

Texts are English. For another language name it in the transform, as in transcript(448, 'fr'), and
in evals.held_out.decode.language; for translation, likewise, the task. Expected: the error rate
before training is that of the published model on these recordings.
"""

from mmjax import pretrained
from mmjax.config import defaults


def part(start, stop, seconds):
    """A part of the folder of recordings."""
    # Of a longer recording the text would say more than what is heard.
    source = {"kind": "recordings", "root": "", "longest": seconds}
    return {"kind": "part", "source": source, "start": start, "stop": stop}


def get_config(weights):
    """The config of this experiment, for a folder of weights."""
    found = pretrained.describe(weights)
    if found.config["name"] != "whisper":
        raise ValueError(
            f"'{weights}' holds a '{found.config['name']}', which does not transcribe: give the "
            "folder of a Whisper."
        )
    audio, words = found.config["audio"], found.text_length
    seconds = audio["length"] / 50
    sound = f"waveform({seconds:g}) | whisper_mel({audio['mels']})"

    config = defaults()
    config.init_from.path = weights
    config.model = {**found.config, "dtype": "bfloat16"}
    config.tokenizer = {"kind": "pretrained", "path": weights}
    config.loss_weights = {"captioning": 1.0}

    config.batch_size = 32
    config.total_steps = 500
    config.log_every = 10
    config.checkpoint.every = 100
    config.data.train = part(0.0, 0.9, seconds)
    config.data.transform = f"{sound} | first_caption | transcript({words})"
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-5,
        "warmup_steps": 0.1,
        "schedule": "linear",
        "b2": 0.98,
        "eps": 1e-6,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
        "freeze": (),
    }

    held_out = part(0.9, 1.0, seconds)
    held_out["source"]["root"] = config.data.train.source.get_ref("root")
    config.evals.held_out = {
        "kind": "transcription",
        "source": held_out,
        "transform": sound,
        "decode": {"max_new_tokens": words // 2, "language": "en", "task": "transcribe"},
    }
    config.evals_at_start = ("held_out",)
    return config
