"""Make tests/golden/efficientnet_lite/ with timm's EfficientNet-Lite0 and random weights.

    python tests/golden/make_efficientnet_lite.py

Made with timm 1.0.31 and torch 2.13.0, in float64. The weights are drawn from their names by
tests/helpers/named_draws.py, here and in the test. "same" padding is another for odd sides than for
even ones; one image is smaller than the strides.
"""

import importlib.abc
import importlib.machinery
import sys
from pathlib import Path
from unittest.mock import MagicMock

import torch
from golden_files import write
from small_models import folder, images, pixel_values

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
import named_draws  # noqa: E402


class NoTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """timm imports torchvision for its transforms alone, which are not used here."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = MagicMock(__spec__=spec, __path__=[])
        module.__name__ = spec.name
        return module

    def exec_module(self, module):
        pass


def main():
    sys.meta_path.append(NoTorchvision())
    import timm
    from timm.models._hub import save_config_for_hf

    torch.set_num_threads(1)
    out = folder(__file__)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=7).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                value.copy_(torch.tensor(named_draws.tensor(name, tuple(value.shape))))
    save_config_for_hf(model, out / "config.json")
    model.double()
    found, layers = {}, []
    blocks = [block for stage in model.blocks for block in stage]
    parts = [model.conv_stem, *blocks, model.conv_head]  # all before a ReLU6
    for part in parts:
        part.register_forward_hook(lambda _, args, y: layers.append(y.permute(0, 2, 3, 1)))
    for name, height, width in (("odd", 33, 38), ("small", 7, 12)):
        image = images(2, height, width)
        layers.clear()
        with torch.inference_mode():
            pixels = pixel_values(image, [0.5] * 3, [0.5] * 3).double()
            maps = model.forward_features(pixels)
            features = model.forward_head(maps, pre_logits=True)
            found |= {f"{name}_image": image, f"{name}_features": features}
            found[f"{name}_logits"] = model.classifier(features)
        if name == "odd":
            found |= {f"layer{i}": x[:1] for i, x in enumerate(layers)}
    write(out, **found)


if __name__ == "__main__":
    main()
