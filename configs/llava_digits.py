r"""A small LLaVA that counts and adds handwritten digits, with or without a chain of thought.

    python -m mmjax.train --config=configs/llava_digits.py --workdir=runs/llava_digits \
        --config.data.train.targets=steps
    python -m experiments.ablate --grid=experiments/reasoning/grid.py --out=runs/reasoning \
        --report=experiments/reasoning

targets: 'answer', the answer alone; 'steps', the digits in reading order and the steps of a sum
first (Wei et al. 2022, arXiv 2201.11903); 'tool', a sum's digits are added by a call of the
calculator. Evaluated are sets of digits, handwriting and phrasings that are not in training: by the
number of steps, with the majority of sampled answers (Wang et al. 2022, arXiv 2203.11171), without
the image and with another one; and calls of the calculator, also with no or another result.
Expected: see experiments/reasoning/README.md.
"""

from configs.llava_emoji import small_llava
from mmjax.config import defaults

# A prompt with a call and its result, or an error, has up to 104 tokens; an answer up to 36.
IMAGE_TOKEN, PER_IMAGE, LENGTH, SIZE = 3, 16, 144, 64
CONVERSE = f"converse({LENGTH}, {IMAGE_TOKEN}, {PER_IMAGE}, template='vicuna'"
ANSWER = {"max_new_tokens": 36}


def digits(split, **more):
    """Instructions about digits, those of a test on sets of digits that are held out."""
    source = {"kind": "tfds", "name": "mnist_digits", "split": split}
    return {"kind": "digit_instructions", "source": source, "test": split == "test", **more}


def asked(kind, stop, phrasings="known", **more):
    """An evaluator of generated answers to a fraction of the test questions."""
    source = digits("test", phrasings=phrasings)
    return {
        "kind": kind,
        "source": {"kind": "part", "source": source, "stop": stop},
        "transform": f"decode | resize({SIZE}) | {CONVERSE}, prompt=True)",
        "decode": ANSWER,
        "after": "Answer:",
        **more,
    }


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.name = "llava_digits"
    config.batch_size = 64
    config.total_steps = 1500
    config.log_every = 20
    config.checkpoint.every = 500

    config.data.train = digits("train", targets="steps")
    config.data.transform = f"decode | resize({SIZE}) | {CONVERSE})"
    config.tokenizer = {"kind": "train_bpe", "vocab_size": 320, "specials": ("<image>",)}

    vocab_size = config.tokenizer.get_ref("vocab_size")
    config.model = small_llava(vocab_size, SIZE, IMAGE_TOKEN, LENGTH)
    config.loss_weights = {"captioning": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "warmup_steps": 100,
        "b2": 0.98,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
    }
    priors = {"train_source": digits("train")}
    config.evals = {
        "digits": asked("vqa", 0.1, samples=(1, 5, 15), **priors),
        "phrasings": asked("vqa", 0.1, "unseen", **priors),
        "tools": asked("tool_use", 0.1, most_calls=1, tools="calculator", well_formed=True),
    }
    return config
