#!/usr/bin/env bash
# webdataset's TarWriter writes two headers before every file.
#
# Versions: webdataset 1.0.2, numpy 2.4.6, Python 3.11.
#
# A shard is a plain tar file: a header of 512 bytes, then the file. Time and memory of whatever scans a shard
# grow with its headers.
#
# Seen: the writer sets the time of each member to time.time(), a float. The tar format of that field is whole
# seconds, so Python's tarfile adds a pax header (a block for its own header, one for "mtime=...") to every file:
# 1,536 bytes before a file instead of 512, and a small record of an image, a text and a JSON file doubles in size.
# With mtime=0 passed to the writer there is none.
#
# What to do: TarWriter(..., mtime=0), which also makes shards of the same content equal.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check webdataset==1.0.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import os
import sys
import tarfile

import webdataset

found = {}
for name, more in (("default", {}), ("mtime=0", {"mtime": 0})):
    with webdataset.TarWriter(f"{name}.tar", **more) as writer:
        for i in range(100):
            writer.write({"__key__": f"{i:06d}", "jpg": bytes(400), "txt": "a caption", "json": {"width": 64}})
    with tarfile.open(f"{name}.tar") as shard:
        members = shard.getmembers()
    found[name] = (len(members), sum(bool(m.pax_headers) for m in members), os.path.getsize(f"{name}.tar"))
    print(f"{name}: {found[name][0]} files, {found[name][1]} with a pax header, {found[name][2]:,} bytes")
plain, zero = found["default"], found["mtime=0"]
sys.exit(0 if plain[1] == plain[0] == 300 and zero[1] == 0 and plain[2] > 1.9 * zero[2] else 1)
PY
