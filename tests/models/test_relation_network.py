"""Relation network and CNN + MLP beside github.com/kimhc6028/relational-networks; Sort-of-CLEVR."""

from pathlib import Path

import jax
import named_draws
import numpy as np
import pytest
from flax.core import meta
from safetensors.numpy import load_file

from mmjax.data.open_source import open_source
from mmjax.data.sources import sort_of_clevr
from mmjax.models.systems import make_system

GOLDEN = Path(__file__).parents[1] / "golden" / "relation_network.safetensors"
CONFIG = {"name": "relation_network", "answers": 10, "vocab_size": 18, "length": 5, "dropout": 0.0}
SHAPES = {"conv1.weight": (24, 3, 3, 3), "fc2.weight": (256, 256), "fc3.weight": (10, 256)}
SHAPES |= {f"conv{i}.weight": (24, 24, 3, 3) for i in (2, 3, 4)}
SHAPES |= {f"g_fc{i}.weight": (256, 256) for i in (2, 3, 4)} | {"f_fc1.weight": (256, 256)}
SHAPES |= {"g_fc1.weight": (256, 70), "fc1.weight": (256, 618)}


def layer(name, prefix=""):
    """Kernel and bias of a map or a convolution of the original."""
    shape = SHAPES[f"{name}.weight"]
    kernel = named_draws.tensor(f"{prefix}{name}.weight", shape)
    bias = named_draws.tensor(f"{prefix}{name}.bias", shape[:1])
    return {"kernel": kernel.T if kernel.ndim == 2 else kernel.transpose(2, 3, 1, 0), "bias": bias}


def original(relation):
    """Our variables with the original's weights."""
    params, statistics = {}, {}
    for i in range(4):
        params[f"conv{i}"] = layer(f"conv{i + 1}", "conv.")
        names = ("weight", "bias", "running_mean", "running_var")
        norm = [named_draws.tensor(f"conv.batchNorm{i + 1}.{name}", (24,)) for name in names]
        params[f"norm{i}"] = dict(zip(("scale", "bias"), norm[:2]))
        statistics[f"norm{i}"] = dict(zip(("mean", "variance"), norm[2:]))
    params |= {"f1": layer("fc2", "fcout."), "head": layer("fc3", "fcout.")}
    if relation == "pairs":
        first = layer("g_fc1")  # of an object, the other with the question
        one, other, asked = np.split(first["kernel"], (26, 52))
        params |= {"g_first": {"kernel": other}, "g_second": {"kernel": one}}
        params["g_question"] = {"kernel": asked, "bias": first["bias"]}
        params |= {f"g{i}": layer(f"g_fc{i + 1}") for i in (1, 2, 3)} | {"f0": layer("f_fc1")}
    else:
        first = layer("fc1")  # of the channels of all cells, ours of the cells' channels
        cells, asked = np.split(first["kernel"], (600,))
        cells = cells.reshape(24, 25, 256).swapaxes(0, 1).reshape(600, 256)
        params["f0"] = {"kernel": np.concatenate([cells, asked]), "bias": first["bias"]}
    return {"params": params, "batch_stats": statistics}


@pytest.mark.parametrize("relation", ["pairs", "none"])
def test_answers_are_those_of_the_original(relation):
    golden = load_file(GOLDEN)
    system = make_system({"model": {**CONFIG, "relation": relation}})
    batch = {name: golden[name] for name in ("image", "text")}
    variables = original(relation)
    shapes = jax.eval_shape(lambda: meta.unbox(system.model.init(jax.random.key(0), batch)))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda x: x.shape, shapes)
    assert system.model.apply(variables, {"image": batch["image"]}) == {}
    logits = system.model.apply(variables, batch)["logits"]
    got = jax.nn.log_softmax(logits)
    np.testing.assert_allclose(got, golden[f"{relation}_eval"], rtol=1e-5, atol=2e-4)
    outputs, new = system.model.apply(variables, batch, train=True, mutable=["batch_stats"])
    got = jax.nn.log_softmax(outputs["logits"])
    np.testing.assert_allclose(got, golden[f"{relation}_train"], rtol=1e-5, atol=2e-4)
    mean = new["batch_stats"]["norm3"]["mean"]
    np.testing.assert_allclose(mean, golden[f"{relation}_mean"], rtol=1e-5, atol=1e-6)


def test_another_relation_is_refused():
    with pytest.raises(ValueError, match="config.model.relation is 'triples'; use one of"):
        make_system({"model": {**CONFIG, "relation": "triples"}})


def slow_answer(image, color, kind, form):
    """The answer read from the pixels of an image, by the extent and the fill of each color; None
    where one object covers a part of another."""
    found = {}
    for name, rgb in sort_of_clevr.COLORS.items():
        y, x = np.nonzero((image == np.asarray(rgb)).all(-1))
        if len(y) not in (11 * 11, 81):  # a circle of radius 5 has 81 pixels
            return None
        square = len(y) == 11 * 11
        found[name] = ((x.min() + x.max()) / 2, (y.min() + y.max()) / 2, square)
    x, y, square = found[color]
    shape = {True: "square", False: "circle"}
    if kind == "non_relational":
        return (shape[square], "yes" if x < 37.5 else "no", "yes" if y < 37.5 else "no")[form]
    if form == 2:
        return str(sum(s == square for *_, s in found.values()) - 1)
    others = [v for name, v in found.items() if name != color]
    distances = [(a - x) ** 2 + (b - y) ** 2 for a, b, _ in others]
    best = min(distances) if form == 0 else max(distances)
    return {shape[v[2]] for v, d in zip(others, distances) if d == best}


def test_answers_are_what_the_image_shows():
    source = open_source({"kind": "sort_of_clevr", "images": 30, "seed": 3})
    assert len(source) == 600
    kinds, read = {"non_relational": 0, "relational": 0}, 0
    for i in range(len(source)):
        example = source[i]
        kind, (question,) = example["question_type"], example["captions"]
        color = next(c for c in sort_of_clevr.COLORS if f" {c} " in question)
        form = [t.format(color) for t in sort_of_clevr.TYPES[kind]].index(question)
        want = slow_answer(example["image"], color, kind, form)
        read += want is not None
        if want is not None:
            assert example["answers"][0] in ({want} if isinstance(want, str) else want)
        assert source.class_names[example["label"]] == example["answers"][0]
        assert source.meta(i) == {k: v for k, v in example.items() if k != "image"}
        kinds[kind] += 1
    assert kinds == {"non_relational": 300, "relational": 300} and read > 300


def test_a_type_alone_has_the_same_questions_and_seeds_differ():
    both = open_source({"kind": "sort_of_clevr", "images": 3, "seed": 0})
    one = open_source({"kind": "sort_of_clevr", "images": 3, "types": ("relational",)})
    assert [one.meta(i)["captions"] for i in range(30)] == [
        both.meta(20 * (i // 10) + 10 + i % 10)["captions"] for i in range(30)
    ]
    other = open_source({"kind": "sort_of_clevr", "images": 3, "seed": 1})
    assert not np.array_equal(both[0]["image"], other[0]["image"])
    with pytest.raises(ValueError, match="images is 0 and types"):
        open_source({"kind": "sort_of_clevr", "images": 0})
    with pytest.raises(ValueError, match="types .'ternary'"):
        open_source({"kind": "sort_of_clevr", "images": 1, "types": ("ternary",)})
    with pytest.raises(IndexError, match="has 60 examples, not one numbered 60"):
        both[60]
