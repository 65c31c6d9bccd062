#!/usr/bin/env bash
# orbax lists s3:// among its remote paths, and cannot save there.
#
# Versions: orbax-checkpoint 0.12.8, jax 0.10.2, etils 1.15.0, s3fs and fsspec 2026.9.0, moto 5.2.5, flask 3.1.3, Python 3.11.
#
# CheckpointManager takes gs:// paths, its table of remote prefixes has "s3://" beside "gs://", and etils' epath
# reads and writes s3:// through fsspec: one expects checkpoints in S3 to work.
#
# Seen: the manager opens the folder, and the first save fails with "Checkpoint path should be absolute. Got
# s3:/bucket/...": the URL has passed through a path library that merges its slashes.
#
# What to do: save on a disk and copy whole checkpoints, their marker file last; or use gs://.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check orbax-checkpoint==0.12.8 jax==0.10.2 \
    jaxlib==0.10.2 "etils[epath]==1.15.0" s3fs==2026.9.0 fsspec==2026.9.0 moto==5.2.5 flask==3.1.3 flask-cors==6.0.5 \
    py-partiql-parser==0.6.3
cd "$folder"
cat > run.py <<'PY'
import os
import sys

from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
os.environ |= {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "x"}
os.environ |= {"AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}

import jax.numpy as jnp
import orbax.checkpoint as ocp
import s3fs
from etils import epath

s3fs.S3FileSystem().mkdir("bucket")
(epath.Path("s3://bucket") / "a.txt").write_text("works")
print("epath:", (epath.Path("s3://bucket") / "a.txt").read_text())
said = "saved"
try:
    with ocp.CheckpointManager(epath.Path("s3://bucket/run/checkpoints")) as manager:
        manager.save(1, args=ocp.args.StandardSave({"w": jnp.ones(4)}))
        manager.wait_until_finished()
except Exception as error:
    said = f"{type(error).__name__}: {error}"
print("orbax:", said.splitlines()[0][:120])
server.stop()
os._exit(0 if "should be absolute. Got s3:/bucket" in said else 1)
PY
JAX_PLATFORMS=cpu "$folder/venv/bin/python" run.py
