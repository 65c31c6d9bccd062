r"""CLAP with HTSAT-tiny, RoBERTa-base and feature fusion, in the setting of LAION.

    python -m mmjax.train --config=configs/clap_htsat.py --workdir=runs/clap_htsat \
        --config.data.train.name=SET --config.tokenizer.path=DIR

Setting: Wu et al. 2022 (arXiv 2211.06687), as in LAION-AI/CLAP's experiment_scripts/
htsat-roberta-large-dataset-fusion.sh: 24 GPUs of 96 pairs, Adam at 1e-4 with 3,200 steps of warmup,
45 epochs of 633,526 pairs (LAION-Audio-630K), clips of 10 seconds at 48 kHz, texts of 77 tokens,
fp32. There the audio tower begins with AudioSet's weights, and the text tower with RoBERTa's. SET
is a prepared TFDS set with `audio` (bytes of a file) and `captions`; the tokenizer's folder holds
RoBERTa's files. Expected: never run in full.
"""

from mmjax.config import defaults

SOUND = "clap_input(10, fusion=True)"


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 24 * 96
    config.total_steps = 45 * 633_526 // config.batch_size
    config.data.train = {"kind": "tfds", "name": "laion_audio_630k", "split": "train"}
    config.data.transform = f"{SOUND} | choose_caption | tokenize(77)"
    config.tokenizer = {"kind": "pretrained", "path": "data/roberta-base"}
    config.model = {
        "name": "clap",
        "embed_dim": 512,
        "audio": {"frames": 1001, "fusion": True, "remat": "full"},
        "text": {
            "width": 768,
            "depth": 12,
            "heads": 12,
            "mlp_dim": 3072,
            "length": 77,
            "segments": 1,
            "position_pad": 1,
            "vocab_size": 50_265,
            "remat": "full",
        },
    }
    config.loss_weights = {"contrastive": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-4,
        "warmup_steps": 3200,
        "b2": 0.999,
        "weight_decay": 0.0,
    }
    return config
