"""Tokens of videos, videos joined to the next of their recording, and the command of clusters."""

import json

import clips
import commands
import numpy as np
import pytest

from mmjax import cluster_video
from mmjax.data import clusters
from mmjax.data.sources.neighbors import open_neighbors
from mmjax.data.transforms import parse as transforms
from mmjax.data.transforms.video_clips import Joined, open_clip
from mmjax.data.transforms.video_tokens import clip_features


def example(count=5, **fields):
    return {"video": clips.frames(count), "captions": ["a bar."], "key": "x", **fields}


def test_tokens_are_the_clusters_of_clips(tmp_path):
    steps = "uniform_frames(6) | each_frame('resize(4)')"
    made = transforms.parse(steps)(example(), np.random.default_rng(0))
    x, mask = clip_features(made, clip=2)
    assert x.shape == (3, 2 * 4 * 4 * 3) and mask.tolist() == [True, True, False]
    frames = made["video"].astype(np.float64) / 255
    np.testing.assert_allclose(x[1], np.concatenate([frames[2].ravel(), frames[3].ravel()]))
    tree = clusters.fit(x[mask], 1, 2)
    clusters.save(tree, tmp_path / "tree")
    row = transforms.parse(f"{steps} | video_tokens('{tmp_path}/tree', clip=2)")(
        example(), np.random.default_rng(0)
    )
    assert set(row) == {"captions", "key", "video_tokens", "video_tokens_mask"}
    np.testing.assert_array_equal(row["video_tokens"], [*tree.ids(x[:2]), 0])
    assert (
        row["video_tokens"].dtype == np.int32 and row["video_tokens_mask"].tolist() == mask.tolist()
    )
    given = {"video_features": np.concatenate([x[:2], x[:2]]).astype(np.float64), "key": "y"}
    for frames, want in ((3, 3), (6, 4)):
        step = f"video_tokens('{tmp_path}/tree', frames={frames})"
        found = transforms.parse(step)(given, None)
        assert found["video_tokens"].shape == (frames,) and found["video_tokens_mask"].sum() == want
    with pytest.raises(ValueError, match="of example 'z': the features have 7 numbers and the"):
        transforms.parse(step)({"video_features": np.zeros((2, 7)), "key": "z"}, None)
    with pytest.raises(ValueError, match="6 frames are no clips of 4"):
        clip_features(made, clip=4)
    with pytest.raises(ValueError, match="no clusters in"):
        transforms.parse(f"{steps} | video_tokens('{tmp_path}/none')")(
            example(), np.random.default_rng(0)
        )


class Recordings:
    """Two recordings by turns."""

    name, class_names = "recordings", None

    def __len__(self):
        return 5

    def __getitem__(self, i):
        return example(3 + i, captions=[f"sentence {i}."], recording="ab"[i % 2], frame_rate=10)

    def meta(self, i):
        return {k: v for k, v in self[i].items() if k != "video"}


def test_an_example_is_joined_to_the_next_of_its_recording():
    source = open_neighbors(Recordings(), "recording")
    assert [source[i].get("next", {}).get("captions") for i in range(5)] == [
        ["sentence 2."],
        ["sentence 3."],
        ["sentence 4."],
        None,
        None,
    ]
    always = transforms.parse("join_next(1.0)")(source[0], np.random.default_rng(0))
    assert always["captions"] == ["sentence 0. sentence 2."] and "next" not in always
    clip = open_clip(always["video"])
    assert len(clip.times) == 3 + 5 and clip.duration == pytest.approx(0.8)
    np.testing.assert_array_equal(
        clip.frames([2, 3, 7]), [clips.frames(3)[2], clips.frames(5)[0], clips.frames(5)[4]]
    )
    run = transforms.parse("join_next(0.3) | uniform_frames(2)")
    joined = [len(run(source[1], np.random.default_rng(i))["captions"][0]) > 12 for i in range(200)]
    assert 0.2 < np.mean(joined) < 0.4
    assert transforms.parse("join_next")(source[4], None)["captions"] == ["sentence 4."]
    with pytest.raises(ValueError, match="Example 0 of recordings has no field 'film'"):
        open_neighbors(Recordings(), "film")
    assert (
        len(open_clip(Joined([(clips.images(clips.frames(2)), 5), (clips.frames(1), 5)])).times)
        == 3
    )


def test_the_command_writes_the_same_clusters_each_time(tmp_path):
    root = tmp_path / "set"
    for i in range(3):
        for j in range(2):
            (root / "ab"[j]).mkdir(parents=True, exist_ok=True)
            data = clips.animated(clips.frames(4, seed=2 * i + j), "GIF", 50)
            (root / "ab"[j] / f"{i}.gif").write_bytes(data)
    config = tmp_path / "config.py"
    config.write_text(
        "from mmjax.config import defaults\n"
        "def get_config():\n"
        "    config = defaults()\n"
        f"    config.data.train = {{'kind': 'videos', 'root': '{root}'}}\n"
        "    config.data.transform = \"uniform_frames(4) | each_frame('resize(4)')"
        f" | video_tokens('{tmp_path}/tree') | label\"\n"
        "    return config\n"
    )
    command = ["-m", "mmjax.cluster_video", f"--config={config}", "--levels=2", "--k=3"]
    done = commands.run(*command, MMJAX_DATA_DIR=str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    assert "24 clips of 48 numbers" in done.stdout and "of 9 clusters used" in done.stdout
    about = json.loads((tmp_path / "tree" / "clusters.json").read_text())
    assert about["vectors"] == 24 and about["features"]["clip"] == 1
    tree = clusters.load(tmp_path / "tree")
    assert tree.size == 9 and tree.counts.sum() == 24
    before = (tmp_path / "tree" / "clusters.safetensors").read_bytes()
    again = commands.run(*command, "--seed=1", MMJAX_DATA_DIR=str(tmp_path / "data"))
    assert again.returncode == 2 and "/tree' has clusters already" in again.stderr
    assert (tmp_path / "tree" / "clusters.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match="has no step video_tokens"):
        cluster_video.steps_before("uniform_frames(3)")
    spec = "join_next | random_frames(8) | each_frame('flip') | video_tokens('x', clip=2) | label"
    steps, settings = cluster_video.steps_before(spec)
    assert steps == "random_frames(8) | each_frame('flip')" and settings["clip"] == 2
