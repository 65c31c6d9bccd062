"""The report's grounding: each word with the part of the image that it is matched with."""

import types

import numpy as np
from fake_runner import FakeRunner

from mmjax.data.source import Source
from mmjax.evals.evaluators import make_evaluators
from mmjax.report.gather import gather_report
from mmjax.report.page import write_report

WORDS = ["<bos>", "<eos>", "<pad>", "red", "<b>", "bus"]
CAPTIONS = ["red bus", "bus", "red <b> bus"]


class Buses(Source):
    name = "buses"

    def __len__(self):
        return len(CAPTIONS)

    def __getitem__(self, i):
        return {"image": np.full((8, 16, 3), 90 * i, np.uint8), "captions": [CAPTIONS[i]]}


class Tokenizer(types.SimpleNamespace):
    def encode(self, texts, length):
        rows = [[0, *(WORDS.index(w) for w in text.split()), 1] for text in texts]
        mask = np.arange(length)[None] < np.array([[len(row)] for row in rows])
        text = np.array([row + [2] * (length - len(row)) for row in rows], np.int32)
        return text, mask

    def decode_raw(self, ids):
        return " ".join(WORDS[i] for i in ids)


def embed(variables, batch):
    rows = len(next(iter(batch.values())))
    return {f"{name}_embed": np.eye(4, dtype=np.float32)[:rows] for name in ("image", "text")}


def batches(source, spec, size):
    ids = [*range(len(source)), *[-1] * (size - len(source))]
    images = np.stack([source[max(i, 0)]["image"] for i in ids])
    yield {"image": images, "example_id": np.array(ids)}


def match_gradients(variables, batch):
    """A class token and 2 x 4 patches: word number w looks at patch w, its second head at none."""
    rows, length = batch["text"].shape
    gradients = np.zeros((3, rows, 2, length, 9), np.float32)
    gradients[1, :, 0] = 8 * np.eye(6, 9, 1)[batch["text"]]
    gradients[1, :, 1] = -1
    weights = np.full_like(gradients, 0.5)
    return {"probability": np.full(rows, 0.25), "weights": weights, "gradients": gradients}


def gathered(**more):
    runner = FakeRunner(
        embed=embed,
        open_source=lambda config: Buses(),
        batches=batches,
        tokenizer=Tokenizer(bos_id=0, end_ids=(1,)),
        text_length=6,
        batch_size=4,
        **more,
    )
    evaluators = make_evaluators(
        {"seen": {"kind": "retrieval", "source": {}, "transform": "decode"}}, runner
    )
    return gather_report(runner, None, evaluators)


def test_each_word_has_its_map_and_special_tokens_have_none(tmp_path):
    data = gathered(match_gradients=match_gradients)
    found = data.sections["grounding"]["seen"]
    assert [pair.words for pair in found] == [
        ["red", "bus"],
        ["bus"],
        ["red", "<b>", "bus"],
    ]
    for i, pair in enumerate(found):
        assert pair.caption == CAPTIONS[i] and pair.image[0, 0, 0] == 90 * i
        assert pair.maps.shape == (len(pair.words), 2, 4)
        for word, weights in zip(pair.words, pair.maps):
            # 0.5 · 8 of one of two heads, at the patch with the token's number
            want = np.zeros(8)
            want[WORDS.index(word)] = 2.0
            np.testing.assert_array_equal(weights.reshape(-1), want)
    path = tmp_path / "report.html"
    about = {"title": "a", "facts": {}, "results": {}, "data": data, "config": {}}
    write_report(path, tmp_path, **about)
    page = path.read_text()
    section = page[page.index('<section id="grounding"') :]
    section = section[: section.index("</section>")]
    assert section.count("<article>") == 3 + 6
    assert "matches: 25%" in section and "&lt;b&gt;" in section and "<b>" not in section


def test_a_model_that_matches_nothing_has_no_grounding(tmp_path):
    assert gathered().sections.keys() == {"retrieval", "health"}
