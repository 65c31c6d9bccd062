"""A batch made again: of many processes on one, and the worst examples first."""

import json
import math
import types

import numpy as np
import pytest
import toy

from mmjax import config as configs
from mmjax import replay
from mmjax.data import pipeline
from mmjax.data.source import Source
from mmjax.data.transforms import parse as transforms
from mmjax.models.systems import make_system
from mmjax.report.examples import Example, worst_first, write_examples
from mmjax.workdir import batch_log


class Noise(Source):
    """Forty images and labels from their index."""

    name, class_names = "noise", list("abcde")

    def __len__(self):
        return 40

    def __getitem__(self, i):
        image = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        return {"image": image, "label": i % 5, "key": f"n{i}"}


def config():
    config = configs.defaults()
    config.batch_size, config.seed = 8, 3
    config.model = {"name": "vit", "variant": "Ti/16", "image_size": (16, 16), "num_classes": 5}
    config.data.transform = "random_crop(8, padding=2) | label"
    config.data.batch_transform = "mixup(0.8, 5)"
    return config


def test_the_batch_of_many_processes_is_made_again_by_one(tmp_path):
    """Mixup too: it mixes within pairs of rows, which lie in one process."""
    run = types.SimpleNamespace(config=config(), system=make_system(config()))
    made, other = (replay.make_batch(run, Noise(), None, at) for at in (4, 5))
    rows = []
    for index in range(2):
        stream = pipeline.train_batches(  # from the beginning, as the run did
            Noise(),
            transforms.parse(config().data.transform, class_names=Noise.class_names),
            batch_size=8,
            seed=3,
            process_index=index,
            process_count=2,
            batch_transform=transforms.parse_batch(config().data.batch_transform),
        )
        rows.append([next(stream) for _ in range(4)][-1])
        stream.close()
    assert set(made) == set(rows[0])
    for name in made:
        np.testing.assert_array_equal(made[name], np.concatenate([r[name] for r in rows]), name)

    log = batch_log.BatchLog(tmp_path)
    log.add(4, made)
    log.flush()
    line = batch_log.line_of(tmp_path, 4)
    assert replay.compare(line, made).startswith("the exact batch that was trained on")
    changed = made | {name: other[name] for name in ("image", "label_probs")}
    said = replay.compare(line, changed)
    assert "NOT the batch that was trained on: image, label_probs diff" in said
    assert "another seed" in replay.compare(line, {**made, "example_id": np.arange(8)})
    assert "no line of this step" in replay.compare(None, made)


def test_the_loss_of_each_example_is_its_terms_times_their_weights_at_that_step():
    weights = {"classification": ((0, 0.0), (10, 2.0)), "accuracy": 0.5}
    run = toy.build(toy.config("vit", loss_weights=weights))
    batch = toy.batch(run.config)
    params = toy.init(run).params
    rng = np.random.default_rng(0)
    params["head"]["kernel"] = rng.normal(size=params["head"]["kernel"].shape).astype(np.float32)
    found = replay.example_losses(run, {"params": params}, batch, 5)
    logits = np.asarray(run.model.apply({"params": params}, batch)["logits"], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    right = logits.argmax(1) == batch["label_probs"].argmax(1)
    want = -(batch["label_probs"] * log_p).sum(1) + 0.5 * right
    assert right.any() and not right.all()
    np.testing.assert_allclose(found, want, rtol=1e-5)
    # One without a label has neither term.
    label = np.array([0, -1, 1, 2, -1, 3, 4, 0], np.int32)
    found = replay.example_losses(run, {"params": params}, {**batch, "label": label}, 5)
    np.testing.assert_allclose(found, np.where(label < 0, 0, want), rtol=1e-5)


class Letters:
    """A tokenizer: 1 begins and 2 ends a text, else a token a letter; 0 fills."""

    eos_id = 2

    def decode(self, ids):
        return "".join(chr(i) for i in ids if i > 2)


def test_a_row_of_several_pictures_shows_them_all_with_their_texts():
    image = np.arange(2 * 3 * 12, dtype=np.uint8).reshape(2, 3, 2, 2, 3)
    rows = ([1, 90, 97, 2, 90, 98, 2, 0], [1, 90, 99, 2, 0, 0, 0, 0])
    batch = {
        "image": image,
        "image_mask": np.array([[True, True, False], [True, False, False]]),
        "text": np.array(rows, np.int32),
        "text_mask": np.array(rows) > 0,
        "example_id": np.array([4, 7]),
    }
    first, second = replay._examples(batch, np.array([2.0, 1.0]), Noise(), Letters())
    assert (first.caption, second.caption) == ("Za | Zb", "Zc")
    np.testing.assert_array_equal(first.image, np.concatenate(image[0, :2], axis=1))
    np.testing.assert_array_equal(second.image, image[1, 0])


def example(row, loss):
    return Example(row, row, f"<{row}>", f"caption {row}", loss, np.zeros((4, 4, 3), np.uint8))


def test_the_worst_come_first_and_what_is_not_a_number_before_them(tmp_path):
    losses = [0.5, math.inf, 2.0, math.nan, -1.0]
    examples = [example(row, loss) for row, loss in enumerate(losses)]
    assert [e.row for e in worst_first(examples)] == [3, 1, 2, 0, 4]
    write_examples(tmp_path / "page.html", "a <title>", {"Mean": "1"}, examples)
    page = (tmp_path / "page.html").read_text()
    places = [page.index(f"caption {row}</") for row in (3, 1, 2, 0, 4)]
    assert places == sorted(places) and "a &lt;title&gt;" in page and "<3>" not in page
    write_examples(tmp_path / "many.html", "many", {}, [example(i, 0.0) for i in range(300)])
    assert "the worst 256 of 300" in (tmp_path / "many.html").read_text()


@pytest.mark.parametrize(
    ("at", "params", "words"),
    [
        (1001, None, "--step is 1001: the last step of this run is 1000"),
        (4, 7, r"--params is 7: the checkpoints in .* are of the steps \(none\), and 0 is the"),
    ],
)
def test_steps_and_checkpoints_that_the_run_does_not_have_are_refused(tmp_path, at, params, words):
    run = {"config": json.loads(configs.to_json(config()))}
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match=words):
        replay.replay(tmp_path, at, params=params)
