r"""Audio-visual speech recognition of LRS3: conformers on log-mel sound and video of lips.

    python -m mmjax.train --config=configs/avsr_lrs3.py --workdir=runs/avsr_lrs3 \
        --config.data.train.root=LRS3/trainval --config.evals.test.source.root=LRS3/test

The sizes follow Ma et al. 2021 (arXiv 2102.06657): ResNet-18 behind a 3-D convolution, 12 conformer
blocks per modality, 6 blocks of the decoder, CTC with a weight of 0.1. Other than there, sound is
log-mel and not a waveform, the modalities attend to each other before they are averaged, where the
paper has an MLP, norms are per frame, and texts are byte pairs, not characters. LRS3 (license from
its authors) must have been cropped to mouths of 96 x 96 pixels, which takes a face tracker. Never
run: nothing is expected of it beyond its sizes.
"""

from mmjax.config import defaults

FRAMES, SIZE, MELS = 160, 88, 80
CLIP = (
    f"decode_video({FRAMES}, {SIZE}, box=(0.04, 0.04, 0.96, 0.96)) | sound(16000)"
    f" | speech_mel({4 * FRAMES}, {MELS}, rate=16000)"
)


def lrs(part):
    """The clips of a folder in the layout of LRS3."""
    return {"kind": "lip_clips", "root": f"data/lrs3/{part}", "layout": "lrs"}


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 128
    config.total_steps = 50_000
    config.log_every = 100
    config.eval_every = 5000
    config.checkpoint.every = 2000

    config.data.train = lrs("trainval")
    config.data.transform = f"{CLIP} | spec_augment | choose_caption(template_p=0.0) | tokenize(64)"
    config.data.num_threads = 32
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 1024}

    block = {"heads": 4, "mlp_dim": 2048}
    config.model = {
        "name": "avsr",
        "width": 256,
        "frames": FRAMES,
        "encoder": {"kind": "conformer", **block, "depth": 12, "kernel": 31},
        "audio": {"mels": MELS},
        "video": {"size": (SIZE, SIZE), "channels": (64, 128, 256, 512), "blocks": 2},
        "fusion": {**block, "depth": 1},
        "text": {
            "vocab_size": config.tokenizer.get_ref("vocab_size"),
            "width": 256,
            "length": 64,
            "decoder": {**block, "depth": 6, "activation": "gelu_tanh"},
        },
        "modality_dropout": 0.3,
        "dropout": 0.1,
    }
    config.loss_weights = {"ctc": 0.1, "captioning": 0.9}
    config.optim = {
        "name": "adamw",
        "learning_rate": 4e-4,
        "warmup_steps": 5000,
        "b2": 0.98,
        "weight_decay": 0.05,
        "grad_clip_norm": 1.0,
    }
    config.evals = {
        "test": {
            "kind": "transcription",
            "source": lrs("test"),
            "transform": CLIP,
            "decode": {"max_new_tokens": 60, "beams": 10},
            "modalities": ("audio", "video"),
        }
    }
    return config
