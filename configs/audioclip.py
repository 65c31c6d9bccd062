r"""AudioCLIP with CLIP's RN50 and ESResNeXt, the sizes of the paper.

    python -m mmjax.train --config=configs/audioclip.py --workdir=runs/audioclip \
        --config.data.train.name=SET --config.tokenizer.path=DIR --config.init_from.path=AUDIOCLIP

Setting: the sizes of Guzhov et al. 2021 (arXiv 2106.13043): 5 seconds at 44.1 kHz, images of 224
pixels, texts of 77 tokens. SGD with momentum 0.9, weight decay 5e-4, batches of 64 and a learning
rate of 5e-5 are those of its published fine-tuning (AndreyGuzhov/AudioCLIP,
protocols/audioclip-esc50.json), whose rate decays exponentially and whose momentum is Nesterov's;
the number of steps is ours. SET is a prepared TFDS set with `audio` (bytes of a file), `image` and
`captions`, of which an example may lack some. The loss is the mean of six cross-entropies.
Expected: never run in full.
"""

from mmjax.config import defaults


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 64
    config.total_steps = 100_000
    config.data.train = {"kind": "tfds", "name": "audioset_frames", "split": "train"}
    config.data.transform = (
        "waveform(5, 44100) | decode(min_size=224) | random_resized_crop(224, scale=(0.9, 1))"
        " | choose_caption | tokenize(77)"
    )
    config.tokenizer = {"kind": "clip_bpe", "path": "data/clip_bpe"}
    config.model = {
        "name": "audioclip",
        "embed_dim": 1024,
        "audio": {"features": 1024},
        "image": {
            "layers": (3, 4, 6, 3),
            "width": 64,
            "heads": 32,
            "features": 1024,
            "image_size": (224, 224),
        },
        "text": {
            "width": 512,
            "depth": 12,
            "heads": 8,
            "mlp_dim": 2048,
            "vocab_size": 49408,
            "length": 77,
            "activation": "quick_gelu",
            "norm_epsilon": 1e-5,
        },
    }
    config.loss_weights = dict.fromkeys(("image_text", "audio_image", "audio_text"), 1 / 3)
    config.loss_weights.filter_norm = 1.0
    config.optim = {
        "name": "sgd",
        "momentum": 0.9,
        "learning_rate": 5e-5,
        "weight_decay": 5e-4,
        "warmup_steps": 0,
    }
    return config
