import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from markov import NONE, Markov
from tiny_language import LLAMA, PROMPTS, language_model

from mmjax.decode.generate import Prepared, make_generate, make_stream
from mmjax.decode.prompts import Detokenizer, pad_prompts
from mmjax.decode.settings import Settings
from mmjax.layers.platform import compiling_for


def by_hand(model, params, steps):
    """Greedy without a cache: the whole text again for every token. Of each prompt the tokens, and
    their log-probability."""
    forward = jax.jit(lambda t, m: model.apply({"params": params}, {"text": t, "text_mask": m}))
    found = []
    for prompt in PROMPTS:
        ids, score = list(prompt), 0.0
        for _ in range(steps):
            text = np.zeros((1, model.window), np.int32)
            text[0, : len(ids)] = ids
            logits = forward(text, text >= 0)["text_logits"][0, len(ids) - 1]
            ids.append(int(logits.argmax()))
            score += float(jax.nn.log_softmax(logits)[ids[-1]])
        found.append((ids[len(prompt) :], score))
    return found


@pytest.mark.parametrize("decoder", [{}, LLAMA])
def test_greedy_is_the_model_without_a_cache_and_a_ragged_batch_each_prompt_alone(decoder):
    model, params = language_model(**decoder)
    batch = pad_prompts(PROMPTS)
    found = make_generate(model, Settings(8))({"params": params}, batch)
    for row, (tokens, score) in enumerate(by_hand(model, params, 8)):
        assert found.tokens[row, 0].tolist() == tokens
        np.testing.assert_allclose(found.scores[row, 0], score, rtol=1e-3, atol=1e-3)
    flipped = {k: v[:, ::-1] for k, v in batch.items()}  # padded on the left
    flipped["text"] = np.zeros_like(batch["text"])
    for row, prompt in enumerate(PROMPTS):
        flipped["text"][row, -len(prompt) :] = prompt
    left = make_generate(model, Settings(8))({"params": params}, flipped)
    np.testing.assert_array_equal(left.tokens, found.tokens)
    streamed = make_stream(model, Settings(8))({"params": params}, batch)
    np.testing.assert_array_equal(np.stack(list(streamed), 1), found.tokens[:, 0])
    # one beam of a search over a real cache is greedy; more find nothing less probable
    search = make_generate(model, Settings(8, beams=4))({"params": params}, batch)
    assert (search.scores[:, 0] * 8 >= found.scores[:, 0] - 1e-3).all()


@pytest.mark.parametrize("int8", [False, True])
def test_prepared_variables_serve_without_the_parameters(int8):
    model, params = language_model()
    batch, settings = pad_prompts(PROMPTS), Settings(4, int8=int8)
    prepared = Prepared(model, settings)({"params": params}, batch)
    kernels = [p for p in jax.tree.leaves(params) if p.ndim > 2]  # stacked, one per layer
    kept = jax.tree.leaves(prepared)
    assert kernels and not any(p is x for p in kernels for x in kept)
    found = make_generate(model, settings)(prepared, batch)
    wanted = make_generate(model, settings)({"params": params}, batch)
    np.testing.assert_array_equal(found.tokens, wanted.tokens)
    np.testing.assert_array_equal(found.scores, wanted.scores)


@pytest.mark.parametrize("tied", [True, False])
def test_int8_is_greedy_on_kernels_rounded_to_127_steps_an_output(tied):
    model, params = language_model(tied=tied)

    def rounded(path, a):
        """What the products read, written out."""
        names = [entry.key for entry in path]
        if names[-1] not in ("kernel", "head"):
            return a
        inputs = (-1,) if names[-1] == "head" else (1, 2) if "out" in names else (1,)
        step = np.abs(a).max(inputs, keepdims=True) / 127
        return (np.round(a / step) * step).astype(np.float32)

    reference = dict(params["text"])
    if tied:  # what is looked up is not rounded
        reference["embed"] = reference["embed"] | {"head": reference["embed"]["embedding"]}
    reference = jax.tree_util.tree_map_with_path(rounded, {"text": reference})
    untied, _ = language_model(tied=False)
    batch = pad_prompts(PROMPTS)
    found = make_generate(model, Settings(8, int8=True))({"params": params}, batch)
    for row, (tokens, score) in enumerate(by_hand(untied, reference, 8)):
        assert found.tokens[row, 0].tolist() == tokens
        np.testing.assert_allclose(found.scores[row, 0], score, atol=0.5)
    streamed = make_stream(model, Settings(8, int8=True))({"params": params}, batch)
    np.testing.assert_array_equal(np.stack(list(streamed), 1), found.tokens[:, 0])
    with compiling_for("gpu"):  # where layers are not apart otherwise, and a cache has other axes
        there = make_generate(model, Settings(8, int8=True, beams=2))({"params": params}, batch)
    here = make_generate(model, Settings(8, int8=True, beams=2))({"params": params}, batch)
    np.testing.assert_array_equal(there.tokens, here.tokens)


def test_one_program_serves_every_length_up_to_the_bucket():
    model, params = language_model()
    given = {"params": params}
    generate = make_generate(model, Settings(2))
    for prompts in ([[1]], [[1, 2, 3, 4]], [[5] * 16]):
        generate(given, pad_prompts(prompts))
    assert generate.__closure__ is not None
    program = next(
        c.cell_contents for c in generate.__closure__ if hasattr(c.cell_contents, "_cache_size")
    )
    assert program._cache_size() == 1


def test_end_tokens_stop_a_row_and_min_new_tokens_delays_them():
    model = Markov(6, seed=4)
    free = make_generate(model, Settings(10))(NONE, pad_prompts(PROMPTS)).tokens[:, 0]
    ends = (int(free[0, 2]),)
    found = make_generate(model, Settings(10, end_ids=ends, pad_id=5))(NONE, pad_prompts(PROMPTS))
    for row in range(3):
        expected = free[row].tolist()
        if ends[0] in expected:
            expected = expected[: expected.index(ends[0]) + 1]
        length = int(found.lengths[row, 0])
        assert found.tokens[row, 0, :length].tolist() == expected
        assert (found.tokens[row, 0, length:] == 5).all()
    for beams in (1, 3):
        settings = Settings(10, min_new_tokens=7, end_ids=ends, beams=beams)
        found = make_generate(model, settings)(NONE, pad_prompts(PROMPTS))
        assert not (found.tokens[:, :, :7] == ends[0]).any()
        assert (found.lengths >= 8).all() or beams == 1
    assert found.lengths.max() > 7


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_ngram_comes_twice_prompt_included(n, beams):
    model = Markov(12, seed=5)
    prompts = [[1, 2, 3, 1, 2], [4], [7, 7]]
    grams = lambda ids: [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]  # noqa: E731
    new = 6 if n == 1 else 20
    plain = make_generate(model, Settings(new, beams=beams))(NONE, pad_prompts(prompts))
    settings = Settings(new, beams=beams, no_repeat_ngram=n)
    found = make_generate(model, settings)(NONE, pad_prompts(prompts))
    repeats = {False: 0, True: 0}
    for kind, result in ((False, plain), (True, found)):
        for row, prompt in enumerate(prompts):
            for tokens in result.tokens[row].tolist():
                before, after = grams(prompt), grams([*prompt, *tokens])
                counts = collections.Counter(after)
                repeats[kind] += sum(v - max(before.count(k), 1) for k, v in counts.items())
    assert repeats[True] == 0 and repeats[False] > 0


def test_a_drawn_token_is_the_same_in_any_batch_and_changes_with_the_seed():
    model = Markov(50, seed=6, scale=0.3)
    generate = make_generate(model, Settings(12, temperature=1.0))
    three = generate(NONE, pad_prompts(PROMPTS), seed=3).tokens
    np.testing.assert_array_equal(
        generate(NONE, pad_prompts(PROMPTS[:1]), seed=3).tokens, three[:1]
    )
    assert (generate(NONE, pad_prompts(PROMPTS), seed=4).tokens != three).any()


class _Bytes:
    def decode(self, ids):
        return bytes(ids).decode("utf-8", errors="replace")


def test_pieces_are_whole_characters_and_together_the_text():
    text = "a café, 日本 🙂 end"
    pieces = Detokenizer(_Bytes().decode)
    found = [pieces.push(b) for b in text.encode()]
    assert "".join(found) == text and pieces.flush() == ""
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in found)
    assert len([p for p in found if p]) == len(text)
    cut = Detokenizer(_Bytes().decode)
    assert cut.push("é".encode()[0]) == "" and cut.flush() == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("decode", [{}, {"beams": 3}, {"temperature": 1.0}])
def test_what_is_forbidden_is_never_written_and_takes_no_probability(decode):
    free = Markov(6)
    found = make_generate(free, Settings(10, **decode))(NONE, pad_prompts(PROMPTS))
    banned = tuple(int(token) for token in np.unique(found.tokens[:, 0])[:2])
    shut = make_generate(free, Settings(10, forbidden_ids=banned, **decode))
    found = shut(NONE, pad_prompts(PROMPTS))
    assert not np.isin(found.tokens, banned).any()
    free.table[..., list(banned)] = -np.inf  # a model that does not know them
    without = make_generate(free, Settings(10, **decode))(NONE, pad_prompts(PROMPTS))
    np.testing.assert_array_equal(found.tokens, without.tokens)
    np.testing.assert_allclose(found.scores, without.scores, rtol=1e-5)


@pytest.mark.parametrize("decode", [{}, {"beams": 3}, {"temperature": 1.0}])
def test_processors_of_ones_own_see_the_history_and_choose_what_may_follow(decode):
    def after_itself(logits, history, count, new):
        """The token after `new` ones is the first of the prompt, `new` further on."""
        return jnp.where(jnp.arange(6)[None] == (history[:, :1] + new) % 6, logits, -jnp.inf)

    own = Settings(6, processors=(after_itself,), **decode)
    found = make_generate(Markov(6), own)(NONE, pad_prompts(PROMPTS))
    want = [[(prompt[0] + i) % 6 for i in range(6)] for prompt in PROMPTS]
    np.testing.assert_array_equal(found.tokens[:, 0], want)
    with pytest.raises(ValueError, match=r"decode.processors has 3: each is a function"):
        Settings(6, processors=(3,))


def test_an_end_that_is_named_twice_ends_a_text_once():
    once, twice = (
        make_generate(Markov(6), Settings(8, end_ids=ends, beams=4))(NONE, pad_prompts(PROMPTS))
        for ends in ((2,), (2, 2))
    )
    np.testing.assert_array_equal(twice.tokens, once.tokens)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda m: make_generate(m, Settings(63))(NONE, pad_prompts(PROMPTS)), "window of 64"),
        (lambda m: make_generate(m, Settings(3, beams=7))(NONE, pad_prompts(PROMPTS)), "6 tokens"),
        (
            lambda m: make_generate(m, Settings(3, end_ids=(6,)))(NONE, pad_prompts(PROMPTS)),
            "token 6",
        ),
        (lambda m: pad_prompts([[1], []]), "Prompt 1 is empty"),
        (lambda m: pad_prompts([]), "at least one"),
        (lambda m: make_stream(m, Settings(3, beams=2)), "beam search cannot stream"),
        (
            lambda m: make_generate(m, Settings(3))(
                NONE, {"text": np.ones((2, 4), np.int32), "text_mask": np.zeros((2, 4), bool)}
            ),
            "Prompt 0 is empty",
        ),
        (lambda m: make_generate(m, Settings(64)), "max_new_tokens is 64 .* window 64"),
        (
            lambda m: make_generate(m, Settings(3, forbidden_ids=(6,)))(NONE, pad_prompts(PROMPTS)),
            "token 6",
        ),
        (lambda m: Settings(3, end_ids=2), "end_ids is 2: it must be a tuple"),
        (lambda m: Settings(3, beams=4, diversity_penalty=1.0), "one group of beams"),
        (lambda m: Settings(3, beams=4, beam_groups=3), "a divisor of beams, 4"),
        (lambda m: Settings(3, min_new_tokens=4), "min_new_tokens is 4"),
        (lambda m: Settings(3, beams=2, temperature=1.0), "does not sample"),
        (lambda m: Settings(3, top_k=5), "give a temperature"),
        (lambda m: Settings(3, temperature=1.0, top_p=0.0), "top_p is 0.0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(run, message):
    with pytest.raises(ValueError, match=message):
        run(Markov(6))
