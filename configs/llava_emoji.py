r"""A small LLaVA on instructions about emoji and digits, trained from scratch.

    python -m mmjax.train --config=configs/llava_emoji.py --workdir=runs/llava_emoji
    python -m mmjax.generate --model=runs/llava_emoji --image=cat.png --prompt="What is this?"

The instructions are made from human-written metadata in many phrasings (mmjax/data/sources/
emoji_instructions.py, digit_instructions.py); one part of the mixture has no images. Evaluated are
concepts, sets of digits and phrasings that are not in training, beside the same model with another
image and without one, the most frequent answers, and a model of the question alone; the yes/no
questions are balanced, as in POPE (Li et al. 2023, arXiv 2305.10355).
Expected, of one seed: accuracy 0.322 on new sets of digits (with another image 0.277, a model of
the question alone 0.203); on new concepts of emoji 0.419, which is no better than with another
image (0.423) or by the question alone (0.405), and 0.298 in new phrasings (0.374 by the question
alone): of emoji it learns how questions are answered, not what is seen. Balanced yes/no questions:
0.515.
"""

from mmjax.config import defaults

IMAGE_TOKEN, PER_IMAGE, LENGTH = 3, 9, 56
ANSWER = {"max_new_tokens": 10}


def chain(*more):
    """The arguments of `converse`."""
    return (
        f"converse({LENGTH}, {IMAGE_TOKEN}, {PER_IMAGE}, size=48, template='vicuna'{''.join(more)})"
    )


def emoji(split, phrasings="known", **more):
    """Instructions about emoji."""
    return {"kind": "emoji_instructions", "split": split, "phrasings": phrasings, **more}


def digits(split, phrasings="known"):
    """Instructions about digits, those of a test on sets of digits that are held out."""
    source = {"kind": "tfds", "name": "mnist_digits", "split": split}
    test = split == "test"
    return {"kind": "digit_instructions", "source": source, "test": test, "phrasings": phrasings}


def answers(source, train, stop=1.0, **more):
    """Generated answers to a fraction of a source, compared with the only right one."""
    return {
        "kind": "vqa",
        "source": {"kind": "part", "source": source, "stop": stop},
        "train_source": train,
        "transform": f"decode | resize(48) | {chain(', prompt=True')}",
        "decode": ANSWER,
        **more,
    }


def small_llava(vocab_size, side, image_token, length, **decoder):
    """The model: 4 layers of width 128 in the image tower and in the decoder."""
    small = {"heads": 4, "mlp_dim": 512}
    return {
        "name": "llava",
        "dtype": "bfloat16",
        "image": {
            **small,
            "width": 128,
            "depth": 4,
            "patch_size": 8,
            "image_size": (side, side),
            "stem": "conv",
            "activation": "gelu_tanh",
        },
        "projector": {"kind": "mlp", "shuffle": 2},
        "text": {
            "vocab_size": vocab_size,
            "width": 128,
            "length": length,
            "decoder": {
                **small,
                "depth": 4,
                "norm": "rms",
                "activation": "silu",
                "gated_mlp": True,
                "use_bias": False,
                "positions": "rope",
                **decoder,
            },
        },
        "image_token": image_token,
        "lock_image": False,
    }


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.name = "llava_emoji"
    config.batch_size = 64
    config.total_steps = 1000
    config.log_every = 20
    config.checkpoint.every = 250

    names = {"kind": "emoji_questions", "split": "train", "types": ("language",)}
    seen = f"random_affine(degrees=10, translate=0.1, scale=(0.8, 1.1)) | {chain()}"
    config.data.train = {
        "kind": "mixture",
        "parts": {
            "emoji": {
                "source": emoji("train"),
                "cached_transform": "decode | resize(48)",
                "transform": seen,
                "weight": 0.6,
            },
            "digits": {
                "source": digits("train"),
                "transform": f"decode | resize(48) | {chain()}",
                "weight": 0.3,
            },
            "text": {"source": names, "transform": f"ask(image=False) | {chain()}", "weight": 0.1},
        },
    }
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 2048, "specials": ("<image>",)}

    config.model = small_llava(
        config.tokenizer.get_ref("vocab_size"), 48, IMAGE_TOKEN, LENGTH, dropout=0.1
    )
    config.loss_weights = {"captioning": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 80,
        "b2": 0.98,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
    }
    about = ("category", "colour", "skin_tone", "is_category", "shows")
    train = emoji("train", tasks=about)
    config.evals = {
        "emoji": answers(emoji("test", tasks=about), train, 0.3, yes_no=True),
        "emoji_phrasings": answers(emoji("test", "unseen", tasks=about), train, 0.3, yes_no=True),
        "digits": answers(digits("test"), digits("train"), 0.1),
    }
    return config
