r"""Fine-tune a trained CLIP or SigLIP on a folder of your own images and captions.

    python -m mmjax.train --config=configs/finetune_folder.py:WEIGHTS --workdir=runs/mine \
        --config.data.train.source.root=IMAGES

WEIGHTS is a published folder, one written by save_pretrained, or the workdir of a run; IMAGES is a
folder with captions.jsonl, .csv or another file of mmjax/data/sources/captions.py. Model,
tokenizer, text length and image size come from WEIGHTS. A tenth of the images is held out, and
retrieval on it, with all captions of each image, is measured before and after training. To measure
forgetting, add evaluators on other data to evals and evals_at_start.

    ... --config.data.train.source.captions=results.csv              # Flickr30k, COCO, open_clip
    ... --config.data.train.source.multiple_captions=True            # several rows per image
    ... --config.optim.freeze="('image/.*',)"                        # frozen image tower
    ... --config.lora.targets="('.*/attention/.*/kernel',)" --config.optim.learning_rate=3e-4

Setting: a small learning rate, weight decay 0.1 and little augmentation, as in Wortsman et al. 2022
(arXiv 2109.01903), section 3. Expected: see experiments/finetune/README.md.
"""

from ml_collections.config_dict import placeholder

from mmjax import pretrained
from mmjax.config import defaults


def part(start, stop):
    """A part of the folder of images."""
    folder = {
        "kind": "folder",
        "root": "",
        "captions": placeholder(str),
        "multiple_captions": placeholder(bool),
    }
    return {"kind": "part", "source": folder, "start": start, "stop": stop}


def get_config(weights):
    """The config of this experiment, for a folder of weights."""
    found = pretrained.describe(weights)
    for part_of, name in (("text", "text tower"), ("image", "image tower")):
        if part_of not in found.config:
            raise ValueError(
                f"The model in '{weights}', a '{found.config['name']}', has no {name}, and "
                "training on images with captions needs one: use a CLIP or a SigLIP."
            )
    height, width = found.model.image_tower(parent=None).train_size

    config = defaults()
    config.init_from.path = weights
    config.model = {**found.config, "dtype": "bfloat16"}
    config.tokenizer = {"kind": "pretrained", "path": weights}
    sigmoid = found.config.get("logit_bias_init") is not None
    config.loss = {"kind": "sigmoid" if sigmoid else "softmax", "mask_duplicates": True}
    config.loss_weights = {"contrastive": 1.0}

    config.batch_size = 128
    config.total_steps = 500
    config.log_every = 10
    config.checkpoint.every = 100
    config.data.train = part(0.0, 0.9)
    config.data.transform = (
        f"decode | random_resized_crop({(height, width)}, scale=(0.9, 1.0)) | choose_caption"
        f" | tokenize({found.text_length})"
    )
    config.optim = {
        "name": "adamw",
        "learning_rate": 1e-5,
        "warmup_steps": 0.1,
        "b2": 0.98,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
        "freeze": (),
    }

    held_out = part(0.9, 1.0)
    for name in ("root", "captions", "multiple_captions"):
        held_out["source"][name] = config.data.train.source.get_ref(name)
    config.evals.held_out = {
        "kind": "retrieval",
        "source": held_out,
        "transform": found.transform,
    }
    config.evals_at_start = ("held_out",)
    return config
