"""A process that adds up numbers over all of them without end; run by
tests/process/test_distributed.py, which kills one.

Arguments: --coordinator, --num_processes, --process_id, and a file that it makes once it is going.
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from mmjax import sharding
from mmjax.process import command, distributed

parser = argparse.ArgumentParser()
parser.add_argument("--coordinator")
parser.add_argument("--num_processes", type=int)
parser.add_argument("--process_id", type=int)
parser.add_argument("going", type=Path)
args = parser.parse_args()


def main() -> None:
    """Add up until an end."""
    distributed.initialize(args, timeout=60)
    mesh = sharding.make_mesh({"data": -1})
    one = jax.device_put(jnp.ones(jax.device_count()), sharding.batch_sharding(mesh))
    total = jax.jit(jnp.sum, out_shardings=sharding.named(mesh))
    while True:
        total(one).block_until_ready()
        args.going.touch()
        time.sleep(0.05)


command.run(main)
