"""Text metrics against COCO's own code on real captions, and against slow obvious references."""

import itertools
import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.evals.metrics.bleu import bleu
from mmjax.evals.metrics.cider import cider
from mmjax.evals.metrics.meteor_exact import ALPHA, BETA, GAMMA, align, meteor_exact
from mmjax.evals.metrics.ptb import tokenize
from mmjax.evals.metrics.repetition import distinct, repetition_rate
from mmjax.evals.metrics.rouge import common_subsequence, rouge_l
from mmjax.evals.metrics.spice import spice
from mmjax.evals.perplexity import perplexity

split = str.split

ODD = [
    # hypothesis, references
    ("", ["a cat"]),
    ("cat", ["cat"]),
    ("cat", ["a dog", "the cat sat on the mat"]),
    ("the the the the the", ["the cat", "the dog the dog"]),
    ("a a a b b b a a a b", ["a b a b a b a b", "b b b a a a"]),
    ("naïve café 日本 語 😀", ["café 日本", "naïve 😀 语 日本 語"]),
    ("one two three four five six seven", ["one two three", "five six seven eight nine ten"]),
    ("never seen words here", ["something else entirely"]),
    ("x", ["a very long reference of many many words that goes on and on"]),
]


def corpus():
    """Names of emoji against their other names, the nearest names, and the odd cases."""
    emoji = pytest.importorskip("emoji", reason="needs the extra mmjax[emoji]")
    names = [
        [" ".join(tokenize(n.strip(":").replace("_", " "))) for n in [e["en"], *e.get("alias", [])]]
        for e in itertools.islice(emoji.EMOJI_DATA.values(), 0, 4000, 9)
    ]
    names = [[n for n in group if n] for group in names]
    names = [group for group in names if group]
    pairs = [(group[0], group[1:] or group) for group in names[::3]]
    # Neighbours in code order often share words: 'man running' for 'woman running'.
    pairs += [(a[0], b) for a, b in zip(names[1::2], names[2::2])]
    return pairs + ODD


@pytest.fixture(scope="module")
def pairs():
    return corpus()


def tokens_of(pairs):
    return [h.split() for h, _ in pairs], [[r.split() for r in refs] for _, refs in pairs]


def for_coco(pairs):
    return {i: r for i, (_, r) in enumerate(pairs)}, {i: [h] for i, (h, _) in enumerate(pairs)}


# ---------------------------------------------------------------- against pycocoevalcap


@pytest.mark.parametrize("part", [slice(None), slice(0, 40), slice(-len(ODD), None), slice(-9, -8)])
def test_bleu_rouge_and_cider_equal_coco_s_own(pairs, part):
    pytest.importorskip("pycocoevalcap", reason="needs the extra mmjax[dev]")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    some = pairs[part]
    ours, theirs = tokens_of(some), for_coco(some)
    np.testing.assert_allclose(
        bleu(*ours), Bleu(4).compute_score(*theirs, verbose=0)[0], rtol=0, atol=1e-6
    )
    for metric, oracle in ((rouge_l, Rouge()), (cider, Cider())):
        mean, each = oracle.compute_score(*theirs)
        np.testing.assert_allclose(metric(*ours), each, rtol=0, atol=1e-6)
        assert metric(*ours).mean() == pytest.approx(mean, abs=1e-6)


def oracle_jar(folder, pattern):
    coco = pytest.importorskip("pycocoevalcap", reason="needs the extra mmjax[dev]")
    if not shutil.which("java"):
        pytest.skip("needs java")
    return str(next(Path(coco.__path__[0], folder).glob(pattern)))


def test_meteor_exact_equals_meteor_with_its_exact_stage_alone(pairs, tmp_path):
    jar = oracle_jar("meteor", "meteor-*.jar")
    # The program splits texts at white space and takes empty ones, but not two of a line.
    some = [(h, [*refs, refs[0]][:2]) for h, refs in pairs]
    (tmp_path / "test").write_text("".join(f"{h}\n" for h, _ in some))
    (tmp_path / "ref").write_text("".join(f"{r}\n" for _, refs in some for r in refs))
    options = ["-l", "en", "-r", "2", "-m", "exact", "-w", "1.0", "-q", "-p", "0.85 0.2 0.6 0.5"]
    done = subprocess.run(
        ["java", "-Xmx1G", "-jar", jar, "test", "ref", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    corpus, each = meteor_exact(*tokens_of(some))
    theirs = [float(line.split()[-1]) for line in done.stderr.split("\n") if line.strip()]
    np.testing.assert_allclose(each, theirs, atol=1e-6)
    assert corpus == pytest.approx(float(done.stdout), abs=1e-6)


# ---------------------------------------------------------------- against slow references


def test_cider_is_the_formula_of_the_paper(pairs):
    """Section "CIDEr-D", with term frequencies divided by the length: it cancels but in the clip,
    so that texts here have as many n-grams as their references."""
    hypotheses, references = tokens_of([*pairs[:25], *ODD])
    same = [
        (h, [r for r in refs if len(r) == len(h)]) for h, refs in zip(hypotheses, references) if h
    ]
    same = [(h, refs) for h, refs in same if refs]
    assert len(same) > 5

    def grams(text, n):
        return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]

    def g(text, n):
        found = grams(text, n)
        vector = {}
        for gram in set(found):
            images = sum(any(gram in grams(r, n) for r in refs) for _, refs in same)
            vector[gram] = found.count(gram) / len(found) * math.log(len(same) / max(1, images))
        return vector

    def similarity(a, b):
        norms = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
        return sum(min(a[k], b[k]) * b[k] for k in a if k in b) / norms if norms else 0.0

    slow = [
        10 * np.mean([[similarity(g(h, n), g(r, n)) for r in refs] for n in (1, 2, 3, 4)])
        for h, refs in same
    ]
    np.testing.assert_allclose(cider(*map(list, zip(*same))), slow, atol=1e-12)


def test_cider_of_a_text_that_is_its_only_reference():
    texts = [split("a red cat sat on it"), split("the blue dog ran to me")]
    np.testing.assert_allclose(cider(texts, [[t] for t in texts]), 10.0)
    np.testing.assert_allclose(cider(texts[:1], [texts[:1]]), 0.0)  # one example: no idf


words = st.lists(st.sampled_from("abc"), max_size=6)


def alignments(a, b):
    """All ways to match equal words one to one."""
    if not a:
        yield []
        return
    for rest in alignments(a[:-1], b):
        yield rest
        for j, word in enumerate(b):
            if word == a[-1] and j not in [q for _, q in rest]:
                yield [*rest, (len(a) - 1, j)]


@settings(max_examples=60)
@given(words, words)
def test_meteor_s_alignment_is_the_best_of_all(a, b):
    def chunks(pairs):
        return sum((i - 1, j - 1) not in pairs for i, j in pairs)

    matches, least = min((-len(p), chunks(p)) for p in alignments(a, b))
    found = align(a, b)
    assert (found.matches, found.length, found.reference_length) == (-matches, len(a), len(b))
    assert found.chunks == (0 if a == b else least)


def test_meteor_by_hand():
    # 5 of 6 tokens of each match, in 2 runs: 'on the mat' and 'the cat'
    stats = align(split("on the mat sat the cat"), split("the cat was on the mat"))
    assert stats[:3] == (5, 6, 6) and stats.chunks == 2
    p = r = 5 / 6
    mean = p * r / (ALPHA * p + (1 - ALPHA) * r)
    assert stats.score() == pytest.approx(mean * (1 - GAMMA * (2 / 5) ** BETA))
    assert align([], ["x"]).score() == 0.0


@settings(max_examples=60)
@given(words, words)
def test_common_subsequence_is_the_longest(a, b):
    def slow(a, b):
        if not a or not b:
            return 0
        if a[-1] == b[-1]:
            return 1 + slow(a[:-1], b[:-1])
        return max(slow(a[:-1], b), slow(a, b[:-1]))

    assert common_subsequence(a, b) == slow(a, b)


def test_bleu_and_rouge_by_hand():
    # Papineni's example: 'the' counts twice at most, as in the reference that has it most often.
    h, refs = ["the"] * 7, [split("the cat is on the mat"), split("there is a cat on the mat")]
    assert bleu([h], [refs])[0] == pytest.approx(2 / 7)
    # Corpus: one short text, brevity exp(1 - 4/2), all of its tokens right.
    assert bleu([["a", "b"]], [[split("a b c d")]])[0] == pytest.approx(math.exp(-1))
    score = rouge_l([split("a b c")], [[split("a c d e")]])[0]
    p, r = 2 / 3, 2 / 4
    assert score == pytest.approx((1 + 1.44) * p * r / (r + 1.44 * p))


def test_repetition():
    loop = split("a b a b a b a b")  # 4-grams: abab baba abab baba abab
    assert repetition_rate([loop, split("all of these differ"), ["x"]]) == pytest.approx(
        (3 / 5 + 0 + 0) / 3
    )
    assert repetition_rate([]) == 0.0
    assert distinct([["a", "b"], ["a", "c"]], 1) == pytest.approx(3 / 4)
    assert distinct([["a", "b"], ["a", "b"]], 2) == pytest.approx(1 / 2)
    assert distinct([["a"]], 2) == 0.0


@given(st.lists(words, max_size=5), st.integers(1, 3))
def test_distinct_counts_over_the_set(texts, n):
    grams = [tuple(t[i : i + n]) for t in texts for i in range(len(t) - n + 1)]
    assert distinct(texts, n) == (len(Counter(grams)) / len(grams) if grams else 0.0)


def test_perplexity():
    # Uniform over 7 tokens: perplexity 7.
    losses = np.full((2, 3), np.log(7.0))
    mask = np.array([[True, True, False], [True, False, False]])
    assert perplexity(losses, mask) == pytest.approx(7.0)
    # Half and quarter: the geometric mean, and what is masked counts nothing.
    losses = -np.log([[0.5, 0.25, 1e-30]])
    assert perplexity(losses, [[True, True, False]]) == pytest.approx(math.sqrt(8))
    with pytest.raises(ValueError, match="no token to count"):
        perplexity(losses, [[False] * 3])
    with pytest.raises(ValueError, match="1 of 3 token losses are not finite"):
        perplexity(np.array([[1.0, np.nan, 2.0]]), np.ones((1, 3), bool))


# ---------------------------------------------------------------- tokens, errors


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A dog's ball, isn't it?", "a dog 's ball is n't it"),
        ("You cannot; it’s 12:30 and $3.50!", "you can not it 's 12:30 and $ 3.50"),
        (
            "A well-known (red) “T-shirt” -- the U.S. flag…",
            "a well-known -lrb- red -rrb- t-shirt the u.s. flag",
        ),
        ("Rock & roll: 50% of C3PO #1", "rock & roll 50 % of c3po # 1"),
        ("Mr. Smith's 1,000 cats/dogs.", "mr. smith 's 1,000 cats/dogs"),
        ("naïve café 日本", "naïve café 日本"),
        (" ... !", ""),
        ("the 10th floor, 10am, in the 1950s", "the 10th floor 10am in the 1950s"),
        ("#hashtag, 7-Eleven, no. 5, 11:30pm, C++", "#hashtag 7-eleven no. 5 11:30 pm c++"),
        ("", ""),
    ],
)
def test_tokens(text, tokens):
    assert tokenize(text) == tokens.split()


def test_tokens_equal_stanford_s_on_odd_captions():
    """Recorded by tests/evals/metrics/make_ptb.py."""
    recorded = Path(__file__).with_name("ptb.json").read_text(encoding="utf-8")
    for caption, tokens in json.loads(recorded).items():
        assert " ".join(tokenize(caption)) == tokens, caption


def test_tokens_equal_stanford_s_on_the_names_of_emoji():
    oracle_jar("tokenizer", "*.jar")
    emoji = pytest.importorskip("emoji", reason="needs the extra mmjax[emoji]")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    names = [e["en"].strip(":").replace("_", " ") for e in emoji.EMOJI_DATA.values()]
    names = list(dict.fromkeys(names))
    theirs = PTBTokenizer().tokenize({i: [{"caption": n}] for i, n in enumerate(names)})
    assert len(names) > 3000
    assert [" ".join(tokenize(n)) for n in names] == [theirs[i][0] for i in range(len(names))]


@pytest.mark.parametrize("metric", [bleu, rouge_l, cider, meteor_exact])
def test_a_wrong_corpus_is_one_clear_sentence(metric):
    with pytest.raises(ValueError, match="0 texts and references for 0"):
        metric([], [])
    with pytest.raises(ValueError, match="1 texts and references for 2"):
        metric([["a"]], [[["a"]], [["b"]]])
    with pytest.raises(ValueError, match="Text 1 has no reference"):
        metric([["a"], ["b"]], [[["a"]], []])
    with pytest.raises(ValueError, match="Text 0 or a reference of it is a string"):
        metric(["a"], [["a"]])


# ---------------------------------------------------------------- SPICE's call


JAVA = """#!/usr/bin/env python3
import json, sys
cases = json.load(open(sys.argv[4]))
out = sys.argv[sys.argv.index("-out") + 1]
if cases[0]["test"] == "broken":
    sys.exit("Exception: no memory")
scores = [c["test"] in c["refs"] for c in cases]
json.dump([{"image_id": c["image_id"], "scores": {"All": {"f": float(s)}}}
           for c, s in reversed(list(zip(cases, scores)))], open(out, "w"))
"""


def test_spice_is_called_or_says_what_is_missing(tmp_path, monkeypatch):
    """The call alone, on a stand-in for the program: its own figures are not tested here."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MMJAX_SPICE", str(tmp_path))
    with pytest.raises(ValueError, match="SPICE runs on Java"):
        spice(["a"], [["a"]])
    (tmp_path / "java").write_text(JAVA.replace("/usr/bin/env python3", sys.executable))
    (tmp_path / "java").chmod(0o755)
    with pytest.raises(ValueError, match=f"spice-1.0.jar, which is not in {tmp_path}"):
        spice(["a"], [["a"]])
    (tmp_path / "spice-1.0.jar").touch()
    with pytest.raises(ValueError, match="SPICE needs stanford-corenlp-3.6.0.jar and"):
        spice(["a"], [["a"]])
    (tmp_path / "lib").mkdir()
    for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        (tmp_path / "lib" / name).touch()
    scores = spice(["a cat", "dog", "日本"], [["a cat"], ["cat", "cow"], ["x", "日本"]])
    assert scores.tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="java -Xmx8G.*no memory"):
        spice(["broken"], [["a"]])
