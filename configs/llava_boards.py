r"""A small LLaVA that answers with boxes and points: objects on boards, regions of maps.

    python -m mmjax.train --config=configs/llava_boards.py --workdir=runs/llava_boards
    python -m experiments.ablate --grid=experiments/grounding/grid.py --out=runs/grounding \
        --report=experiments/grounding

"Where is the X?", "Point to the X." and "What is at <box>?", about scenes of ktuberling's objects
on their boards and about kgeography's maps. Boxes are four tokens of location bins, as in PaliGemma
(arXiv 2407.07726), or decimal numbers: see experiments/grounding/.
Held out are two boards (of `potato_game` the names are known and the drawings new; of `egypt` both
are new), a fifth of the names, phrasings, and the maps of a fifth of the countries.
Expected: not measured yet.
"""

from configs.llava_emoji import small_llava
from configs.owlvit_boards import BOARDS, scenes
from mmjax.config import defaults

# An image is 16 tokens, a conversation up to 70 (in decimals), an answer up to 26.
IMAGE_TOKEN, PER_IMAGE, LENGTH, SIZE = 3, 16, 96, 64
ANSWER = {"max_new_tokens": 32}
SHORTEST = 0.15  # longer side of a region, as a fraction of the image's


def chain(form="bins", prompt=False):
    """The transform of training, or of a prompt with the true box."""
    steps = f"decode | resize({SIZE})" + " | regions(1)" * prompt
    end = ", prompt=True" * prompt
    return (
        f"{steps} | write_boxes('{form}') | converse({LENGTH}, {IMAGE_TOKEN}, {PER_IMAGE}, "
        f"template='vicuna'{end})"
    )


def questions(source, length, names="known", phrasings="known", seed=0):
    """Questions about the regions of a source's images."""
    return {
        "kind": "grounded_instructions",
        "source": source,
        "length": length,
        "names": names,
        "phrasings": phrasings,
        "min_side": SHORTEST,
        "seed": seed,
    }


def boards(split, count, length, seed, **more):
    """Questions about scenes of some boards."""
    return questions(scenes(split, count, seed), length, seed=seed, **more)


def maps(split, length, **more):
    """Questions about the maps of a split."""
    return questions({"kind": "tfds", "name": "kgeography", "split": split}, length, **more)


def evaluations(form="bins"):
    """What is evaluated: each with the same training questions as its baseline."""
    about_boards = boards(BOARDS, 4000, 400, 2)
    about_maps = maps("train", 400, seed=2)
    sources = {
        "seen": (boards(BOARDS, 200, 200, 1), about_boards),
        "phrasings": (boards(BOARDS, 200, 200, 1, phrasings="unseen"), about_boards),
        "new_names": (boards(BOARDS, 200, 200, 1, names="unseen"), about_boards),
        "new_drawings": (boards("potato_game", 150, 150, 1, names="all"), about_boards),
        "new_board": (boards("egypt", 150, 150, 1, names="all"), about_boards),
        "maps": (maps("train", 200, phrasings="unseen", seed=1), about_maps),
        "new_maps": (maps("test", 200, names="all", seed=1), about_maps),
    }
    return {
        name: {
            "kind": "grounded_answers",
            "source": source,
            "train_source": train,
            "transform": chain(form, prompt=True),
            "decode": ANSWER,
        }
        for name, (source, train) in sources.items()
    }


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.name = "llava_boards"
    config.batch_size = 64
    config.total_steps = 2000
    config.log_every = 20
    config.checkpoint.every = 500

    config.data.train = {
        "kind": "mixture",
        "parts": {
            "boards": {
                "source": boards(BOARDS, 4000, 32_000, 0),
                "transform": chain(),
                "weight": 0.75,
            },
            "maps": {"source": maps("train", 8000), "transform": chain(), "weight": 0.25},
        },
    }
    config.tokenizer = {
        "kind": "train_bpe",
        "vocab_size": 1024 + 1024,
        "specials": ("<image>",),
        "locations": True,
    }

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
    config.evals = evaluations()
    return config
