"""VideoBERT on wesnoth: masked tokens beside n-grams, and captions and actions found from frames.

    python experiments/video_wesnoth.py --workdir=runs/videobert_wesnoth

For a finished run of configs/videobert_wesnoth.py, on the test split (no folder of frames and no
name of it is in training). Every number is of the split's videos alone:

1. Accuracy at one masked video token, each position in turn, given the others of the video, and
   given the caption too. Beside it the most frequent token, the most probable one after the token
   on the left, after those on both sides (counts of the training split, plus one), and a copy of
   the token on the left (at the first place, on the right).
2. Captions ranked for each video by the logit that they match. Every caption is one of the split's.
3. Actions, the most frequent of the training split: the blank of "<name>, [<action>]" filled in.
   Beside it the most frequent action of the training split.

2 and 3 are also measured with the middle frame alone, in place of all of them, and with shuffled
frames: where they are as good, the model does not use the order or more than one frame.
"""

import argparse
import collections
import functools

import jax
import numpy as np

from configs import videobert_wesnoth as settings
from mmjax.data.open_source import open_source
from mmjax.data.transforms.parse import parse
from mmjax.models.videobert import blanks
from mmjax.pretrained import load

ACTIONS = 8
CHANGES = ("all frames", "shuffled frames", "the middle frame")


def rows(split, tokenizer):
    """The examples of a split: their meta data, and their batch."""
    source = open_source(settings.wesnoth(split))
    transform = parse(settings.EVAL_TRANSFORM, tokenizer=tokenizer)
    found = [transform(source[i], np.random.default_rng(i)) for i in range(len(source))]
    names = ("text", "text_mask", "video_tokens", "video_tokens_mask")
    meta = [source.meta(i) for i in range(len(source))]
    return meta, {name: np.stack([row[name] for row in found]) for name in names}


def n_grams(tokens, mask, codes):
    """Counts of the tokens [C], and of pairs that follow each other [C, C]."""
    single = np.bincount(tokens[mask], minlength=codes)
    pairs = np.zeros((codes, codes))
    both = mask[:, 1:]
    np.add.at(pairs, (tokens[:, :-1][both], tokens[:, 1:][both]), 1)
    return single, pairs


def masked_tokens(apply, model, train, test, use_text):
    """Accuracy of the model and of each baseline at one masked token."""
    codes = model.codes
    single, pairs = n_grams(train["video_tokens"], train["video_tokens_mask"], codes)
    after = (pairs + 1) / (pairs + 1).sum(1, keepdims=True)
    prior = (single + 1) / (single + 1).sum()
    right = collections.Counter()
    tokens, mask = test["video_tokens"], test["video_tokens_mask"]
    for t in range(tokens.shape[1]):
        there = mask[:, t]
        masked = tokens.copy()
        masked[:, t] = codes
        given = {**test, "video_corrupted": masked}
        given["text_used"] = np.full(len(tokens), use_text)
        logits = np.asarray(apply(given)["video_prediction"])[:, t]
        last = (np.arange(tokens.shape[1]) < mask.sum(1, keepdims=True) - 1)[:, t]
        left = tokens[:, t - 1] if t else None
        following = tokens[:, min(t + 1, tokens.shape[1] - 1)]
        forward = after[left] if t else np.broadcast_to(prior, logits.shape)
        backward = np.where(last[:, None], after[:, following].T, 1.0)
        guesses = {
            "VideoBERT": logits.argmax(1),
            "unigram": np.full(len(tokens), single.argmax()),
            "bigram, left": forward.argmax(1),
            "bigram, both sides": (forward * backward).argmax(1),
            "copy of a neighbor": left if t else following,
        }
        for name, guess in guesses.items():
            right[name] += int((guess == tokens[:, t])[there].sum())
    return {name: round(count / int(mask.sum()), 4) for name, count in right.items()}


def changed(test, how, seed=0):
    """The batch with other video tokens: see the module."""
    tokens, mask = test["video_tokens"].copy(), test["video_tokens_mask"]
    rng = np.random.default_rng(seed)
    for row, valid in zip(tokens, mask):
        count = int(valid.sum())
        if how == "shuffled frames":
            row[:count] = rng.permutation(row[:count])
        elif how == "the middle frame":
            row[:count] = row[count // 2]
    return {**test, "video_tokens": tokens}


def retrieval(apply, meta, test):
    """Rank of the own caption among those of the split: recall at 1 and 5, and the median."""
    captions = [m["captions"][0] for m in meta]
    first = [captions.index(c) for c in sorted(set(captions))]
    own = np.asarray([sorted(set(captions)).index(c) for c in captions])
    scores = []
    for i in first:
        text = {k: np.repeat(test[k][i : i + 1], len(own), 0) for k in ("text", "text_mask")}
        logits = np.asarray(apply({**test, **text})["match_logits"])
        scores.append(logits[:, 1] - logits[:, 0])
    scores = np.stack(scores, 1)
    mine = scores[np.arange(len(own)), own][:, None]
    ranks = (scores >= mine).sum(1)  # ties count against it
    chance = {"recall@1": 1 / len(first), "recall@5": 5 / len(first), "of": len(first)}
    found = {"recall@1": float((ranks == 1).mean()), "recall@5": float((ranks <= 5).mean())}
    return found | {"median rank": float(np.median(ranks))}, chance


def actions(apply, model, tokenizer, train_meta, meta, test):
    """Accuracy of the action in "<name>, [<action>]", of the most frequent one, and of how many."""
    known = [a for a, _ in collections.Counter(m["action"] for m in train_meta).most_common()]
    known = [a for a in known if a][:ACTIONS]
    asked = [i for i, m in enumerate(meta) if m["action"] in known]
    scores = []
    for action in known:
        texts = [f"{meta[i]['name']}, [{action}]" for i in asked]
        text, blank = map(np.stack, zip(*(blanks(tokenizer, t, settings.LENGTH) for t in texts)))
        given = {k: v[asked] for k, v in test.items()}
        given |= {"text": text, "text_mask": (text != tokenizer.pad_id) | blank}
        given["text_corrupted"] = np.where(blank, model.mask, text).astype(np.int32)
        log_p = jax.nn.log_softmax(apply(given)["text_prediction"])
        log_p = np.take_along_axis(np.asarray(log_p), text[..., None], -1)[..., 0]
        scores.append((log_p * blank).sum(1) / blank.sum(1))  # per token
    guess = np.argmax(scores, axis=0)
    right = np.mean([known[g] == meta[i]["action"] for g, i in zip(guess, asked)])
    most = np.mean([meta[i]["action"] == known[0] for i in asked])
    return {"VideoBERT": float(right), "most frequent": float(most), "of": len(asked)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", required=True)
    args = parser.parse_args()
    loaded = load(args.workdir)
    model, variables, tokenizer = loaded.model, loaded.variables, loaded.need_tokenizer()
    apply = jax.jit(functools.partial(model.apply, variables))
    train_meta, train = rows("train", tokenizer)
    meta, test = rows("test", tokenizer)
    for use_text in (False, True):
        found = masked_tokens(apply, model, train, test, use_text)
        print("one masked token", "with the caption" if use_text else "", found, flush=True)
    for how in CHANGES:
        batch = changed(test, how)
        print(how, "captions", *retrieval(apply, meta, batch), flush=True)
    for how in CHANGES:
        batch = changed(test, how)
        print(how, "actions", actions(apply, model, tokenizer, train_meta, meta, batch))


if __name__ == "__main__":
    main()
