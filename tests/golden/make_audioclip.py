"""Make tests/golden/audioclip.safetensors with AudioCLIP's own code at a small random size.

    AUDIOCLIP=DIR python tests/golden/make_audioclip.py

DIR is a checkout of github.com/AndreyGuzhov/AudioCLIP (commit 45327aa), run unmodified with torch
2.13.0 and scipy; its other imports (ignite, torchvision, its tokenizer) are not needed here.
Weights are drawn from their names by tests/helpers/named_draws.py: 12 million, as the widths of its
audio tower are fixed. Recorded: each stage of the audio tower in evaluation, its training mode with
the running statistics after one step, both towers of CLIP with a residual network, and the losses.
"""

import importlib.util
import os
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch
from golden_files import write

HERE = Path(__file__).parent
sys.path[:0] = [os.environ["AUDIOCLIP"], str(HERE.parent / "helpers")]
for name in ("torchvision", "torchvision.transforms", "termcolor", "ignite_trainer"):
    sys.modules[name] = MagicMock()
for name in ("model.clip.clip", "utils", "utils.transforms"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["utils"].transforms = sys.modules["utils.transforms"]
sys.modules["model.clip.clip"].tokenize = None

import named_draws  # noqa: E402

SETTINGS = {"embed_dim": 24, "n_fft": 256, "win_length": 200, "hop_length": 61}
IMAGE = {"image_resolution": 64, "vision_layers": (1, 2, 1, 1), "vision_width": 8}
TEXT = {"context_length": 10, "vocab_size": 99, "transformer_width": 16}
TEXT |= {"transformer_heads": 2, "transformer_layers": 2}


def original(path, name):
    """A file of the checkout as a module."""
    spec = importlib.util.spec_from_file_location(name, Path(os.environ["AUDIOCLIP"]) / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def drawn(module, prefix=""):
    """The module with weights drawn from the names of its tensors."""
    own = {k: v for k, v in module.state_dict().items() if v.is_floating_point()}
    with torch.no_grad():
        for name, value in own.items():
            if name.split(".")[-1] != "window":
                value.copy_(torch.tensor(named_draws.tensor(prefix + name, tuple(value.shape))))
    return module


def main():
    net = original("ignite_trainer/_interfaces.py", "interfaces").AbstractNet
    sys.modules["ignite_trainer"].AbstractNet = net
    # Of utils/transforms.py, whose other classes are made of torchvision's.
    lines = (Path(os.environ["AUDIOCLIP"]) / "utils/transforms.py").read_text()
    plain = lines[lines.index("def scale(") : lines.index("class ToTensor1D")]
    exec("import math, torch\n" + plain, sys.modules["utils.transforms"].__dict__)
    from model.audioclip import AudioCLIP
    from model.clip.model import CLIP
    from model.esresnet.base import Bottleneck
    from model.esresnet.fbsp import _ESResNetFBSP, ttf_weights

    sizes = {k: v for k, v in SETTINGS.items() if k != "embed_dim"}
    audio = _ESResNetFBSP(
        block=Bottleneck,
        layers=[1, 2, 1, 1],
        num_classes=24,
        apply_attention=True,
        window="blackmanharris",
        normalized=True,
        spec_height=-1,
        spec_width=-1,
        groups=4,
        width_per_group=16,
        **sizes,
    )
    audio = drawn(audio, "audio.").eval()
    rng, kept = np.random.default_rng(0), {}
    waveform = rng.normal(0, 0.1, (3, 4007)).astype(np.float32)
    wave = torch.tensor(waveform) * 32768
    for name in ("maxpool", "layer1", "layer2", "layer3", "layer4", "att2", "att5"):
        hook = lambda _, args, y, name=name: kept.update({name: y.permute(0, 2, 3, 1)})  # noqa: E731
        getattr(audio, name).register_forward_hook(hook)
    with torch.no_grad():
        outputs = {"waveform": waveform, "decibels": audio._forward_pre_processing(wave)[:, 0]}
        outputs["audio_features"] = audio(wave)
        stages = {f"audio_{name}": x.clone() for name, x in kept.items()}
        outputs["filter_norm"] = audio.loss_ttf(wave.device)
        outputs["filters"] = ttf_weights[wave.device]
        audio.train()
        outputs["train_audio_features"] = audio(wave)
    names = [name for name, _ in audio.named_buffers() if "running_" in name]
    buffers = dict(audio.named_buffers())
    # Of every norm the first numbers: the whole would be a megabyte.
    outputs |= {f"train/audio.{name}": buffers[name][:16] for name in names}

    clip = drawn(CLIP(24, **IMAGE, vision_patch_size=None, **TEXT)).eval()
    image = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = (torch.tensor(image).double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    pixels = pixels.permute(0, 3, 1, 2).float()
    at, ends = np.arange(10), np.array([[9], [4], [6]])
    text = np.where(at < ends, rng.integers(1, 90, (3, 10)), np.where(at == ends, 98, 0))
    layers = {}
    for i in range(1, 5):
        getattr(clip.visual, f"layer{i}").register_forward_hook(
            lambda _, args, y, i=i: layers.update({f"image_layer{i}": y.permute(0, 2, 3, 1)})
        )
    with torch.no_grad():
        outputs |= {"image": image, "text": text.astype(np.int32), "text_mask": at <= ends}
        outputs["image_features"] = clip.encode_image(pixels)
        stages |= {name: x.clone() for name, x in layers.items()}
        outputs["text_features"] = clip.encode_text(torch.tensor(text))
        clip.train()
        outputs["train_image_features"] = clip.encode_image(pixels)

    # The loss of a batch of three triples, and of image-text pairs alone.
    logits = [torch.tensor(rng.normal(size=(3, 3)) * 3) for _ in range(3)]
    fake = types.SimpleNamespace(dtype=torch.float64, device="cpu")
    outputs |= dict(zip(("logits_ai", "logits_at", "logits_it"), logits))
    outputs["loss"] = AudioCLIP.loss_fn(fake, tuple(logits)).reshape(1)
    outputs["loss_it"] = AudioCLIP.loss_fn(fake, (None, None, logits[2])).reshape(1)
    folder = HERE / "audioclip"
    folder.mkdir(exist_ok=True)
    # Of a stage the middle column of the image.
    stages = {name: x[:, :, x.shape[2] // 2, :64] for name, x in stages.items()}
    write(folder, **outputs, **stages)


main()
