"""Make relation_network.safetensors: answers of github.com/kimhc6028/relational-networks.

    python tests/golden/make_relation_network.py FOLDER

FOLDER has the repository's model.py (commit 9c340d50). Made with torch 2.13.0. Weights are drawn
from their names by tests/helpers/named_draws.py, here and in the test. Two things are corrected:
the code was written for Python 2, whose division gives whole rows of the grid (`cvt_coord`), and
its dropout is also active in evaluation.
"""

import sys
import types
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "helpers"))
import named_draws  # noqa: E402

sys.path.insert(0, sys.argv[1])
import model as original  # noqa: E402

ROWS = 3


def main():
    """Write the file: logarithms of probabilities, in evaluation and in training."""
    torch.set_num_threads(1)
    original.F.dropout = lambda x: x
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (ROWS, 75, 75, 3), np.uint8)
    text = np.stack([rng.permutation(18)[:5] for _ in range(ROWS)]).astype(np.int32)
    question = torch.zeros(ROWS, 18)
    question.scatter_(1, torch.tensor(text, dtype=torch.int64), 1.0)
    pixels = torch.tensor(image).permute(0, 3, 1, 2).contiguous() / 255
    found = {"image": image, "text": text}
    args = types.SimpleNamespace(batch_size=ROWS, cuda=False, lr=1e-4, relation_type="binary")
    for name, kind in (("pairs", original.RN), ("none", original.CNN_MLP)):
        net = kind(args)
        with torch.no_grad():
            for key, value in net.state_dict().items():
                if value.dtype == torch.float32:
                    value.copy_(torch.tensor(named_draws.tensor(key, tuple(value.shape))))
            if name == "pairs":
                cells = [[(i // 5 - 2) / 2, (i % 5 - 2) / 2] for i in range(25)]
                net.coord_tensor[:] = torch.tensor(cells)
            net.eval()
            found[f"{name}_eval"] = net(pixels, question).numpy()
            net.train()
            found[f"{name}_train"] = net(pixels, question).numpy()
            found[f"{name}_mean"] = net.conv.batchNorm4.running_mean.numpy().copy()
    save_file(found, HERE / "relation_network.safetensors")


if __name__ == "__main__":
    main()
