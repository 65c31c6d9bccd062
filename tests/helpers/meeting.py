"""What two real processes do together without a model; run by tests/process/test_distributed.py.

Arguments: --coordinator, --num_processes, --process_id, and a folder of images that both see.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from contrastive_sharded import batch as pairs
from contrastive_sharded import gradients

from mmjax import sharding
from mmjax.data import pipeline
from mmjax.data.open_source import open_source
from mmjax.data.prefetch import to_device
from mmjax.process import distributed
from mmjax.workdir.checkpoint import Checkpoints

parser = argparse.ArgumentParser()
parser.add_argument("--coordinator")
parser.add_argument("--num_processes", type=int)
parser.add_argument("--process_id", type=int)
parser.add_argument("folder")
args = parser.parse_args()
me = args.process_id
distributed.initialize(args, timeout=60)
found = {"count": jax.process_count(), "values": distributed.exchange("letters", "ab"[me])}

made = Path(args.folder) / f"made-{args.coordinator.rpartition(':')[2]}"
with distributed.main_first("making a file"):
    found["was_there"] = made.exists()
    if me == 0:
        made.write_text("x")

# One epoch, and the order of a batch: the rows read here, and the rows on the devices.
mesh = sharding.make_mesh({"data": -1})
index, parts = sharding.batch_share(mesh)
source = open_source({"kind": "folder", "root": args.folder})
rows, arrived = [], []
batches = pipeline.train_batches(
    source,
    lambda example, rng: {},
    batch_size=8,
    seed=3,
    process_index=index,
    process_count=parts,
)
whole = jax.jit(lambda x: x, out_shardings=sharding.named(mesh))
for _ in range(len(source) // 8):
    batch = next(batches)
    rows.append(batch["example_id"].tolist())
    placed = to_device(batch, sharding.batch_sharding(mesh))["example_id"]
    arrived.append(np.asarray(whole(placed)).tolist())
found |= {"rows": rows, "arrived": arrived}

# The ring over both processes: blocks are sent from one to the other and back.
half = slice(12 * me, 12 * me + 12)
x, y, ids = (a[half] for a in pairs(24))
mine = to_device({"x": x, "y": y, "ids": ids}, sharding.batch_sharding(mesh))
scalars = jnp.float32(20.0), jnp.float32(-5.0)
with jax.set_mesh(mesh):
    for kind in ("softmax", "sigmoid"):
        got = gradients(kind, "ring", 2, 0.1)(mine["x"], mine["y"], *scalars, mine["ids"])
        found[kind] = [np.asarray(whole(a)).tolist() for a in jax.tree.leaves(got)]

# A damaged newest checkpoint: only process 1 reads the damaged rows.
split = jax.NamedSharding(mesh, jax.P(mesh.axis_names[0]))
noise = jax.jit(lambda: jax.random.normal(jax.random.key(0), (64, 512)), out_shardings=split)()
saves = Checkpoints(Path(args.folder) / "run")
for at in (1, 2):
    saves.save(at, {"x": at * noise}, {"step": at})
saves.wait()
with distributed.main_first("damaging a checkpoint"):
    if me == 0:
        for file in saves.path(2).glob("state/ocdbt.process_1/d/*"):
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
like = jax.ShapeDtypeStruct(noise.shape, noise.dtype, sharding=split)
saved, state = saves.restore_newest({"x": like})
found["restored"] = saved["step"], np.array_equal(whole(state["x"]), whole(noise))
found["aside"] = saves.path(2).with_name("2.damaged").is_dir()
saves.close()

# 'tensor' over both processes: they hold, and so must read, the same rows.
found["share_of_tensor"] = sharding.batch_share(sharding.make_mesh({"tensor": -1}))


def refusal(function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except ValueError as error:
        return str(error)
    return None


found["same"] = refusal(distributed.check_same, "the color", "red")
found["other"] = refusal(distributed.check_same, "the color", ["red", "blue"][me])
if me == 0:
    found["missing"] = refusal(distributed.exchange, "a meeting", timeout=1)
sys.stdout = sys.__stdout__
print(json.dumps(found), flush=True)
told = made.with_suffix(".told")
if me == 0:
    told.write_text("x")
while not told.exists():
    time.sleep(0.05)
if me == 1:  # ends early; the other, which would wait for a minute, must end with it
    distributed.leave("the data ran out", 2)
distributed.exchange("an end that one never reaches", timeout=60)
