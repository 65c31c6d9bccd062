"""Fuzzed readers of data sets beside images: conversations, pairs, arranged rows, lip clips."""

import json

from mmjax.data.source import Source
from mmjax.data.sources.bucket import open_bucket
from mmjax.data.sources.conversations import open_conversations
from mmjax.data.sources.lip_clips import open_lip_clips
from mmjax.data.sources.nlvr2 import open_nlvr2
from mmjax.data.sources.packed import open_packed
from tests.fuzz.reader import Reader, Seed
from tests.fuzz.sets import photo

RECORDS = [
    {
        "id": "a",
        "image": "0.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nwhat is it?"},
            {"from": "gpt", "value": "a bus"},
        ],
    },
    {
        "key": 3,
        "audio": "1.jpg",
        "messages": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "and"}, {"type": "image", "image": "1.jpg"}],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "a dog"}]},
        ],
    },
]
PAIR = {
    "identifier": "dev-1-0-2",
    "sentence": "Both have wheels.",
    "label": "True",
    "directory": 3,
}
GROUPS = {"groups": [[0, 2], [1, 3]], "buckets": {"16": [0, 1], "32": [2, 3]}}
ALIGN = "0 1000 sil\n1000 2400 bin\n2400 3000 blue\n"


def _records(folder) -> list[Seed]:
    for name in ("0.jpg", "1.jpg", "dev-1-0-img0.png", "dev-1-0-img1.png"):
        (folder / name).write_bytes(photo())
    for speaker, name in (("s1", "a"), ("s2", "b")):
        frames = folder / "lips" / speaker / name
        frames.mkdir(parents=True)
        (frames / "0.png").write_bytes(photo())
    (folder / "lips" / "s1" / "align").mkdir()
    rows = "\n".join(json.dumps(record) for record in RECORDS)
    seeds = [Seed(json.dumps(RECORDS).encode(), "records.json", True)]
    seeds += [Seed(rows.encode(), "records.jsonl")]
    seeds += [Seed(json.dumps(PAIR).encode(), "pairs.json", tree) for tree in (True, False)]
    seeds += [Seed(json.dumps(GROUPS).encode(), "groups.json", True)]
    return [*seeds, Seed(ALIGN.encode(), "a.align"), Seed(b"Text:  BIN BLUE\n", "b.txt")]


def _read_record(data: bytes, seed: Seed, folder) -> None:
    given = {"max_bad_records": 1.0, "data_dir": folder, "workdir": folder}
    place = {"a.align": "lips/s1/align/a.align", "b.txt": "lips/s2/b.txt"}
    path = folder / place.get(seed.about, seed.about)
    path.write_bytes(data)
    if seed.about.startswith("records"):
        source = open_conversations(path, **given)
    elif seed.about == "pairs.json":
        source = open_nlvr2(path, folder, **given)
    elif seed.about == "groups.json":
        _read_groups(path)
        return
    else:
        layout, speaker = ("grid", "s1") if seed.about == "a.align" else ("lrs", "s2")
        source = open_lip_clips(folder / "lips", layout, (speaker,))
    for i in range(len(source)):
        source.meta(i)
        source[i]
    list(source.files())


class Four(Source):
    """Four captions, which files of `mmjax.pack` arrange."""

    name = "four"

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        return {"captions": [str(index)]}


def _read_groups(path) -> None:
    source, refused = Four(), None
    for opened in (lambda: open_packed(source, path), lambda: open_bucket(source, path, 16)):
        try:
            found = opened()
            for i in range(len(found)):
                found[i]
        except ValueError as error:
            refused = error
    if refused is not None:
        raise refused


READERS = {"records": Reader(_records, _read_record, 150)}
