"""Whole runs of tiny_clip: starting them, how they end, and their checkpoints."""

import signal
import socket
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
from etils import epath

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).parent / "tiny_clip.py"
TRAIN = ["-m", "mmjax.train", f"--config={CONFIG}"]


def train_here(*arguments):
    """`mmjax.train.train` in this process, on its 8 devices; its signals stay as they were."""
    from mmjax import train
    from mmjax.process.preemption import NAMES

    handlers = {number: signal.getsignal(number) for number in NAMES}
    try:
        return train.train(*arguments)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def state_of(workdir, step):
    """Every array of a checkpoint by path, unsharded, whatever devices wrote it."""
    import jax

    path = epath.Path(workdir) / "checkpoints" / str(step) / "state"
    reader = ocp.PyTreeCheckpointer()
    tree = reader.metadata(path).item_metadata.tree
    args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    tree = reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=args))
    return {
        jax.tree_util.keystr(p): np.asarray(x)
        for p, x in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def refused(done, *words):
    """Assert that the command failed with one last sentence that contains these words."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stderr
    assert done.stderr.rstrip().endswith(errors[0]), done.stderr
    for word in words:
        assert word in errors[0], (word, errors[0])


def flip_bits(checkpoint):
    """Damage the middle of every file with array data or their index; some are unread copies."""
    for path in (checkpoint / "state").rglob("d/*"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def ends(processes, timeout=300):
    """[(exit code, stdout, stderr)] of the processes, which are killed if they hang."""
    try:
        out = [p.communicate(timeout=timeout) for p in processes]
    finally:
        for p in processes:
            p.kill()
    return [(p.returncode, *o) for p, o in zip(processes, out)]
