#!/usr/bin/env bash
# A lock in a bucket that is tested on gcp-storage-emulator is not tested.
#
# Versions: gcp-storage-emulator 2026.7.19, gcsfs 2026.10.1, fsspec 2026.9.0, Python 3.11.
#
# In Cloud Storage, a write with ifGenerationMatch=0 succeeds only if there is no such object: of several writers
# one creates it, which is how a lock is made. gcsfs sends it for pipe_file(..., mode="create").
#
# Seen: the emulator ignores it. The second writer's request succeeds too and replaces the object, so both hold the
# lock and every test of it is green or red by chance of order.
#
# What to do: test locks against a server that checks generations, if need be a proxy in front of the emulator.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gcp-storage-emulator==2026.7.19 \
    gcsfs==2026.10.1 fsspec==2026.9.0
cd "$folder"
cat > run.py <<'PY'
import os
import socket
import sys

from gcp_storage_emulator.server import create_server

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
server = create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
server.start()
os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{port}"
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

import gcsfs

store = gcsfs.GCSFileSystem(token="anon", endpoint_url=f"http://127.0.0.1:{port}", skip_instance_cache=True)
outcomes = []
for writer in (b"first", b"second"):
    try:
        store.pipe_file("bucket/lock", writer, mode="create")
        outcomes.append("created")
    except FileExistsError:
        outcomes.append("exists already")
content = store.cat_file("bucket/lock")
print("two writers:", outcomes, "the object:", content)
server.stop()
os._exit(0 if outcomes == ["created", "created"] and content == b"second" else 1)
PY
"$folder/venv/bin/python" run.py
