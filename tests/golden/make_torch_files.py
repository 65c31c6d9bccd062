"""Make tests/golden/torch_files/ with torch.save: both containers, every dtype, views, parameters.

    python tests/golden/make_torch_files.py

Made with torch 2.13.0. expected.safetensors holds the same tensors, contiguous, and floats as
float32.
"""

import collections

import torch
from golden_files import write
from small_models import folder

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8")
DTYPES += ("uint8", "bool")


def tensors():
    """Tensors by name; several are views of one storage."""
    torch.manual_seed(0)
    base = torch.randn(4, 5, 6)
    found = collections.OrderedDict(
        (k, (10 * torch.randn(3, 2)).to(getattr(torch, k))) for k in DTYPES
    )
    found |= {
        "base": base,
        "transposed": base.permute(2, 0, 1),
        "rows": base[1:3, ::2],
        "last": base[3, 4, 5],
        "end": base.flatten()[120:],
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "ünïcode": torch.arange(3),
    }
    return found


def main():
    out = folder(__file__)
    given = tensors()
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))
    for name, value in (("tensors", given), ("module", model.state_dict())):
        torch.save(value, out / f"{name}.pth")
        torch.save(value, out / f"{name}_stream.pth", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "state": {"x": torch.ones(1)}}, out / "other.pth")
    torch.save({"x": torch.zeros(1).expand(1000)}, out / "repeated.pth")
    wanted = {f"tensors/{k}": x.detach().contiguous().clone() for k, x in given.items()}
    wanted |= {f"module/{k}": x for k, x in model.state_dict().items()}
    write(out, **wanted)


if __name__ == "__main__":
    main()
