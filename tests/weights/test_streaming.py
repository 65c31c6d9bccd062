"""Published folders in several shards, onto a mesh and in int8: what is read, held and the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from parity import GOLDEN, close, expected, outputs
from safetensors.numpy import load_file, save_file

import mmjax
from mmjax import pretrained, sharding
from mmjax.decode.generate import Prepared, make_generate
from mmjax.decode.settings import Settings
from mmjax.run import initial
from mmjax.weights import tensor_file
from mmjax.weights.layouts import Joined
from mmjax.weights.shards import Shards, held_bytes
from mmjax.weights.tensor_file import Safetensors

WIDTH, MLP, DEPTH, VOCAB = 512, 1536, 6, 4000

# In a process of its own, whose peak is that of loading. Linux sets the peak back by clear_refs.
MEASURE = """
import gc, json, sys
import jax, numpy as np
import mmjax
from mmjax import sharding

def status():
    lines = [line.split() for line in open("/proc/self/status")]
    return {k[:-1]: int(v[0]) * 1024 for k, *v in lines if k in ("VmHWM:", "VmRSS:")}

def peak(path, **settings):
    gc.collect()
    open("/proc/self/clear_refs", "w").write("5")
    before = status()["VmRSS"]
    loaded = mmjax.load(path, **settings)
    jax.block_until_ready(loaded.variables)
    return loaded, status()["VmHWM"] - before

small, big = sys.argv[1:]
mmjax.load(small), mmjax.load(small, int8=True)  # what loading imports and compiles
mesh = sharding.make_mesh({"data": 1, "fsdp": 4, "tensor": 2})
sharded, on_mesh = peak(big, mesh=mesh)
plain, whole = peak(big)
same = jax.tree.map(np.array_equal, sharded.params, plain.params)
split = [not x.sharding.is_fully_replicated for x in jax.tree.leaves(sharded.params)]
full = sum(x.nbytes for x in jax.tree.leaves(plain.params))
del sharded, plain
quantized, in_int8 = peak(big, int8=True)
left = sum(x.nbytes for x in jax.tree.leaves(quantized.variables))
print(json.dumps([whole, on_mesh, in_int8, full, left, all(jax.tree.leaves(same)), sum(split)]))
"""


def write_llava(folder, shard_bytes):
    """A LLaVA in bfloat16 with the image tower of the golden one and a wider decoder."""
    config = json.loads((GOLDEN / "llava" / "config.json").read_text())
    sizes = {"hidden_size": WIDTH, "intermediate_size": MLP, "num_hidden_layers": DEPTH}
    sizes |= {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64}
    config["text_config"] |= {**sizes, "vocab_size": VOCAB, "tie_word_embeddings": False}
    config |= {"tie_word_embeddings": False}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    layer = {
        **{f"self_attn.{x}_proj": (512 if x in "qo" else 256, WIDTH) for x in "qkvo"},
        "mlp.gate_proj": (MLP, WIDTH),
        "mlp.up_proj": (MLP, WIDTH),
        "mlp.down_proj": (WIDTH, MLP),
        "input_layernorm": (WIDTH,),
        "post_attention_layernorm": (WIDTH,),
    }
    shapes = {f"model.layers.{i}.{k}": s for i in range(DEPTH) for k, s in layer.items()}
    shapes |= {"model.embed_tokens": (VOCAB, WIDTH), "lm_head": (VOCAB, WIDTH)}
    shapes |= {"model.norm": (WIDTH,)}
    shapes = {f"language_model.{k}.weight": s for k, s in shapes.items()}
    kept = load_file(GOLDEN / "llava" / "model.safetensors")
    for name in [x for x in kept if "multi_modal_projector" in x]:
        *_, inner = kept.pop(name).shape
        first, bias = "linear_1" in name, name.endswith("bias")
        shapes[name] = (WIDTH,) if bias else (WIDTH, inner if first else WIDTH)
    kept = {k: x for k, x in kept.items() if "vision_tower" in k}
    rng = np.random.default_rng(0)
    drawn = (
        (k, (0.02 * rng.standard_normal(s, np.float32)).astype(ml_dtypes.bfloat16))
        for k, s in shapes.items()
    )
    tensor_file.write(folder, [*kept.items(), *drawn], shard_bytes=shard_bytes)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc")
def test_peak_memory_and_equality_of_a_folder_of_shards(tmp_path):
    write_llava(tmp_path / "llava", 15_000_000)
    assert len(list((tmp_path / "llava").glob("model-*.safetensors"))) > 2
    given = [sys.executable, "-c", MEASURE, str(GOLDEN / "llava"), str(tmp_path / "llava")]
    flags = "--xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    root = Path(mmjax.__file__).parents[1]
    done = subprocess.run(given, env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    *peaks, full, left, same, sharded = json.loads(done.stdout.splitlines()[-1])
    whole, on_mesh, in_int8 = peaks
    assert same and sharded > 10
    # the parameters and 30 % of them more; read whole and stacked they took twice as much
    assert max(whole, on_mesh) < 1.3 * full, (peaks, full)
    assert left < 0.4 * full and in_int8 < 0.9 * full, (peaks, full, left)


class Counted(np.ndarray):
    """An array that counts the bytes of its slices."""

    read = 0

    def __getitem__(self, index):
        found = super().__getitem__(index)
        Counted.read += found.nbytes
        return found


class Half:
    """A sharding whose first device alone is this process's: the second half of the last axis."""

    def addressable_devices_indices_map(self, shape):
        return {"here": (*(slice(None),) * (len(shape) - 1), slice(shape[-1] // 2, None))}


def test_only_the_bytes_of_its_own_shards_are_read():
    x = np.arange(48.0, dtype=np.float32).reshape(6, 8)
    parts = [a.reshape(3, 8).view(Counted) for a in np.split(x, 2)]
    held, Counted.read = Shards((8, 6), np.float32, Half()), 0
    held.fill(Joined([part.T for part in parts], axis=1), None)
    assert Counted.read == x.nbytes // 2 == held_bytes((8, 6), np.float32, Half())
    (found,) = held._buffers.values()
    np.testing.assert_array_equal(found, x.T[:, 3:])


def test_a_view_is_of_the_file_and_equals_what_is_read():
    for name in ("llama", "llama_tied", "paligemma"):  # shards, bfloat16, float16
        tensors = Safetensors(GOLDEN / name)
        for key in tensors.shapes:
            view, whole = tensors.view(key), tensors.read(key)
            assert view.dtype == whole.dtype and not view.flags.writeable
            np.testing.assert_array_equal(view, whole)


def test_a_header_that_begins_as_a_pickle_does_is_one_of_safetensors(tmp_path):
    """Its length is 640 bytes, b"\\x80\\x02" in the file."""
    x = {"x": np.zeros(3, np.float32)}
    for size in range(400, 640):
        save_file(x, tmp_path / "model.safetensors", {"text": "a" * size})
        if (tmp_path / "model.safetensors").read_bytes()[:2] == b"\x80\x02":
            break
    assert Safetensors(tmp_path).shapes == {"x": (3,)}


def test_int8_while_it_is_read_is_int8_afterwards(tmp_path):
    whole, loaded = mmjax.load(GOLDEN / "llava"), mmjax.load(GOLDEN / "llava", int8=True)
    want = expected("llava")
    batch = {name: want[name][:1] for name in ("text", "text_mask")}
    batch["image"] = np.stack([loaded.image(x) for x in want["image"][:2]])[None]
    settings = Settings(3, int8=True)
    then = Prepared(whole.model, settings)(whole.variables, batch)
    assert jax.tree.structure(loaded.packed) == jax.tree.structure(then["packed"])
    for ours, theirs in zip(jax.tree.leaves(loaded.packed), jax.tree.leaves(then["packed"])):
        difference = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))
        assert difference.max() <= (1 if ours.dtype == np.int8 else 1e-8)
    generate = make_generate(loaded.model, settings)
    tokens = [generate(variables, batch).tokens for variables in (loaded.variables, then)]
    np.testing.assert_array_equal(*tokens)
    found = outputs(loaded, batch)["text_logits"]  # without a cache too
    seen, exact = want["text_mask"][0], want["text_logits"][0]
    close(found[0, seen][:, ::3], exact[seen], 0.1)
    with pytest.raises(ValueError, match="was loaded in int8, which is rounded"):
        pretrained.save_pretrained(loaded, tmp_path)


def test_what_preflight_says_of_the_memory():
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    said = initial.reading_takes(GOLDEN / "llama", mesh)
    params = pretrained.describe(GOLDEN / "llama").params
    parameters = 4 * sum(x.size for x in jax.tree.leaves(params))
    assert f"a process holds {parameters / 1e6:,.1f} MB of parameters" in said
    size = sum(x.stat().st_size for x in (GOLDEN / "karlo").rglob("*") if x.is_file())
    said = initial.reading_takes(GOLDEN / "karlo", mesh)  # each part is in a folder of its own
    assert said.startswith(f"{size / 1e6:,.1f} MB of files; ")


@pytest.mark.parametrize(("name", "kind"), [("clip", "CLIP"), ("blip_captioner", "BLIP")])
def test_int8_is_for_decoders(name, kind):
    with pytest.raises(ValueError, match=f"int8 is for language models .* a '{kind}': leave"):
        mmjax.load(GOLDEN / name, int8=True)
