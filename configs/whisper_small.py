r"""Whisper small, 241 million parameters, on 680,000 hours of speech as in the paper.

    python -m mmjax.train --config=configs/whisper_small.py --workdir=runs/whisper_small \
        --config.data.train.root=DIR --config.tokenizer.path=WHISPER

Setting: Radford et al. 2022 (arXiv 2212.04356), tables 17 and 18; see whisper_tiny.py. Published
weights of this size: openai/whisper-small.
"""

from configs.whisper_tiny import whisper


def get_config():
    """The config of this experiment."""
    return whisper(768, 12, 5e-4, remat="dots")
