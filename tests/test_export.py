"""Exported towers, in a process that knows nothing of the models, against the models themselves."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import commands
import drawn as draws
import jax
import numpy as np
import pytest
import toy

from mmjax import config as configs
from mmjax import export, pretrained
from mmjax.layers.platform import compiling_for
from mmjax.models.systems import make_system
from mmjax.variables import abstract_variables

GOLDEN = Path(__file__).parent / "golden"

# jax and numpy alone; reads what export.json says and nothing else.
ALONE = """
import json, sys
import jax, numpy as np
from jax import export
folder = sys.argv[1]
about = json.load(open(folder + "/export.json"))
weights = dict(np.load(folder + "/" + about["weights"]))
given = np.load(folder + "/given.npz")
out = {}
for name, tower in about["towers"].items():
    program = export.deserialize(bytearray(open(folder + "/" + tower["file"], "rb").read()))
    arrays = [given[f"{name}{i}"] for i in range(len(tower["inputs"]))]
    for size in (1, len(arrays[0])):
        found = program.call(weights, *[a[:size] for a in arrays])
    out |= {k: np.asarray(v) for k, v in found.items()}
np.savez(folder + "/out.npz", **out)
assert not [m for m in sys.modules if m.split(".")[0] in ("mmjax", "flax")]
"""


def run_alone(folder):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder)], cwd="/", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "out.npz"))


def test_the_towers_of_a_published_clip(tmp_path):
    folder = tmp_path / "out"
    done = commands.run("-m", "mmjax.export", f"--model={GOLDEN / 'clip'}", f"--out={folder}")
    assert done.returncode == 0, done.stderr
    assert "image: cpu, cuda, tpu\ntext: cpu, cuda, tpu\n" in done.stdout

    model = pretrained.load(GOLDEN / "clip")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    text, mask = model.tokenizer.encode(["a b", "ab", "b a b"], model.text_length)
    np.savez(folder / "given.npz", image0=image, text0=text, text1=mask)
    batch = {"image": image, "text": text, "text_mask": mask}
    want = jax.jit(lambda p: model.model.apply({"params": p}, batch))(model.params)
    found = run_alone(folder)
    assert found.keys() == {"image_embed", "text_embed"}
    for name, value in found.items():
        np.testing.assert_allclose(value, want[name], rtol=0, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(value, axis=1), 1, atol=1e-5)

    about = json.loads((folder / "export.json").read_text())
    assert about["logit_scale"] == pytest.approx(float(want["logit_scale"]), rel=1e-6)
    image, text = about["towers"]["image"], about["towers"]["text"]
    assert image["inputs"] == [{"name": "image", "shape": ["b", 24, 24, 3], "dtype": "uint8"}]
    assert [x["name"] for x in text["inputs"]] == ["text", "text_mask"]
    assert [x["dtype"] for x in text["inputs"]] == ["int32", "bool"]
    assert image["preprocessing"]["steps"] == model.transform
    assert text["tokenizer"]["length"] == 12
    assert text["tokenizer"]["eos_id"] == model.tokenizer.eos_id
    assert (text["tokenizer"]["prefix"], text["tokenizer"]["cleaning"]) == ("", None)
    assert (folder / text["tokenizer"]["file"]).is_file()

    with pytest.raises(ValueError, match="holds an export already"):
        export.export(model, folder)


def test_the_towers_of_a_published_siglip(tmp_path):
    model = pretrained.load(GOLDEN / "siglip")
    about = export.export(model, tmp_path)
    rng = np.random.default_rng(0)
    weights = dict(np.load(tmp_path / "weights.npz"))
    batch, found = {}, {}
    for tower in about["towers"].values():
        for x in tower["inputs"]:
            high = {"uint8": 256, "int32": 60, "bool": 2}[x["dtype"]]
            batch[x["name"]] = rng.integers(0, high, (3, *x["shape"][1:])).astype(x["dtype"])
        program = jax.export.deserialize(bytearray((tmp_path / tower["file"]).read_bytes()))
        found |= program.call(weights, *[batch[x["name"]] for x in tower["inputs"]])
    want = jax.jit(lambda p: model.model.apply({"params": p}, batch))(model.params)
    assert found.keys() == {"image_embed", "text_embed"}
    for name, value in found.items():
        np.testing.assert_allclose(value, want[name], rtol=0, atol=1e-5)
    assert about["logit_bias"] == pytest.approx(float(want["logit_bias"]), rel=1e-6)


def loaded(system, **fields):
    run = toy.build(toy.config(system, **fields))
    config = run.config.model.to_dict()
    return pretrained.Pretrained(config, run.model, toy.init(run).params, None, None, "decode", "")


def test_a_classifier_gives_its_features_and_logits(tmp_path):
    names = tuple(f"class {i}" for i in range(10))
    model = dataclasses.replace(loaded("vit"), class_names=names)
    about = export.export(model, tmp_path)
    assert about["towers"]["image"]["class_names"] == list(names)
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "given.npz", image0=image)
    found = run_alone(tmp_path)
    want = model.model.apply({"params": model.params}, {"image": image})
    assert about["towers"].keys() == {"image"}
    assert found.keys() == {"image_features", "logits"}
    for name, value in found.items():
        np.testing.assert_allclose(value, want[name], rtol=0, atol=1e-5)


def test_a_classifier_of_sounds_is_exported(tmp_path):
    config = toy.shrink(configs.load(f"{GOLDEN.parents[1]}/configs/kwt_fsdd.py"), depth=1)
    system = make_system(config)
    params = draws.drawn(abstract_variables(system.model, system.spec)["params"])
    steps = "waveform(1, 8000) | mfcc(4, 10)"
    names = tuple("0123456789")
    model = pretrained.Pretrained(
        config.model.to_dict(),
        system.model,
        params,
        None,
        None,
        "",
        "",
        audio_transform=steps,
        class_names=names,
    )
    about = export.export(model, tmp_path)["towers"]["audio"]
    assert about["preprocessing"] == {"steps": steps} and about["class_names"] == list(names)
    assert [x["shape"] for x in about["inputs"]] == [["b", 8, 4]]
    assert about["outputs"].keys() == {"audio_features", "logits"}


@pytest.mark.parametrize("name", ["audioclip", "clap_htsat"])
def test_towers_with_batch_norms_take_any_batch_size(name):
    """As an export does: their shapes have a symbol for the batch size."""
    config = toy.shrink(configs.load(f"{GOLDEN.parents[1]}/configs/{name}.py"), depth=1)
    system = make_system(config)
    given = abstract_variables(system.model, system.spec)
    (size,) = jax.export.symbolic_shape("b")
    batch = {k: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for k, x in system.spec.items()}
    with compiling_for("gpu"):
        found = jax.eval_shape(system.model.apply, given, batch)
    assert found["audio_embed"].shape == (size, 16)


def test_what_cannot_be_exported_is_said(tmp_path):
    config = toy.shrink(configs.load(f"{GOLDEN.parents[1]}/configs/captioner_drawings.py"))
    system = make_system(config)
    params = abstract_variables(system.model, system.spec)["params"]
    whole = pretrained.Pretrained(config.model.to_dict(), system.model, params, None, None, "", "")
    with pytest.raises(ValueError, match="A 'captioner' has no tower that makes a vector"):
        export.export(whole, tmp_path)
    assert not any(tmp_path.iterdir())
    with pytest.raises(ValueError, match="is not a model: it has neither a config.json"):
        pretrained.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clop"}')
    (tmp_path / "model.safetensors").write_bytes((GOLDEN / "clip/model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="'clop'.*clip"):
        pretrained.load(tmp_path)
