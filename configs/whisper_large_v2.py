r"""Whisper large-v2, 1.54 billion parameters, on 680,000 hours of speech as in the paper.

    python -m mmjax.train --config=configs/whisper_large_v2.py --workdir=runs/whisper_large_v2 \
        --config.data.train.root=DIR --config.tokenizer.path=WHISPER --config.mesh.fsdp=16

Setting: Radford et al. 2022 (arXiv 2212.04356), tables 17 and 18: 655,360 updates of batch 1,024,
SpecAugment by the policy LibriSpeech Basic (Park et al. 2019, arXiv 1904.08779, table 1) and
stochastic depth; see whisper_tiny.py. Stochastic depth is in the encoder alone, and there is no
BPE dropout. Published weights of this size: openai/whisper-large-v2.
"""

from configs.whisper_tiny import MELS, SECONDS, WORDS, features, whisper


def get_config():
    """The config of this experiment."""
    config = whisper(1280, 32, 2e-4, remat="dots")
    config.batch_size = 1024
    config.total_steps = 655_360
    masks = f"spec_augment({100 / (100 * SECONDS)}, {27 / MELS}, 1)"  # 100 frames and 27 mels
    config.data.transform = f"{features()} | {masks} | first_caption | transcript({WORDS})"
    config.model.audio.stochastic_depth = 0.1
    return config
