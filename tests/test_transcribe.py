"""Transcription by a tiny model: beside transformers, by its own properties, and as a command."""

import dataclasses
import json

import commands
import jax
import numpy as np
import pytest
import soundfile
from parity import GOLDEN, expected

from mmjax.decode.prompts import pad_rows
from mmjax.pretrained import load
from mmjax.speech.fallback import Decoded, Thresholds, compression_ratio
from mmjax.speech.recording import RATE
from mmjax.transcribe import make_decoder, outputs, transcribe

FOLDER = GOLDEN / "whisper_words"
DECODING = json.loads((FOLDER / "decoding.json").read_text())
WINDOW = 46 * 160  # samples
NO_LIMITS = {"compression_ratio": 1e9, "logprob": -1e9, "no_speech": 1.0}
GREEDY = Thresholds((0.0,), **NO_LIMITS)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def loaded():
    return load(FOLDER)


def with_generation(loaded, **settings):
    return dataclasses.replace(loaded, generation={**loaded.generation, **settings})


def noise(path, seconds, rate=RATE, channels=1):
    samples = np.random.default_rng(1).normal(0, 0.1, (round(seconds * rate), channels))
    soundfile.write(path, samples, rate)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recordings: three with noise, a silent one, one with a gap, and what cannot be read."""
    root = tmp_path_factory.mktemp("recordings")
    noise(root / "long.wav", 2.3)
    noise(root / "stereo.wav", 0.4, 8000, 2)
    noise(root / "short.flac", 0.1)
    soundfile.write(root / "silence.wav", np.zeros(RATE), RATE)
    gap = np.concatenate([np.zeros(WINDOW), 0.1 * RNG.normal(size=3000)])
    soundfile.write(root / "gap.wav", gap, RATE)
    (root / "empty.wav").write_bytes(b"")
    (root / "cut.wav").write_bytes((root / "long.wav").read_bytes()[:-100])
    return root


@pytest.fixture(scope="module")
def decoders(loaded):
    """Without and with timestamps, for the golden folder's recordings in one batch."""
    loaded = with_generation(loaded, max_initial_timestamp_index=5)
    size = len(expected("whisper_words")["audio"])
    return [
        make_decoder(loaded, timestamps=t, batch_size=size, thresholds=GREEDY)
        for t in (False, True)
    ]


def test_tokens_are_those_of_transformers(decoders):
    audio = expected("whisper_words")["audio"]
    prompts = [[]] * len(audio)
    heard = decoders[0].listen(list(audio), prompts)
    for row, given in zip(decoders[0].languages(heard), DECODING["languages"]):
        # The folder's sinusoids are rounded to fp16, ours are not.
        assert [row[code] for code in DECODING["codes"]] == pytest.approx(given, abs=1e-4)
        assert list(row.values()) == sorted(row.values(), reverse=True)
    for case in DECODING["cases"]:
        decoder = decoders[case["timestamps"]]
        decoder.task = case["task"]
        found = decoder.transcribe(heard, prompts, [case["language"]] * len(audio))
        assert [list(x.tokens) for x in found] == case["tokens"], case
        silence = [x.no_speech_prob for x in found]
        assert silence == pytest.approx(DECODING["no_speech"], rel=1e-3)


def forward(loaded, texts):
    """Logits [B, 25, V] of whole texts for the golden recordings, without a cache."""
    text, mask = pad_rows(texts, 25)
    batch = {"audio": expected("whisper_words")["audio"], "text": text, "text_mask": mask}
    return np.array(jax.jit(loaded.model.apply)(loaded.variables, batch)["text_logits"])


def log_probabilities(logits, decoder, before, result, limit=12):
    """log p [N or N + 1, V] of a transcript's tokens and of the end, if it has room for it."""
    logits = logits[len(before) - 1 : len(before) + len(result.tokens)].copy()
    settings = decoder.programs.settings
    logits[:, settings.forbidden_ids] = -np.inf
    logits[0, list(settings.processors[0].ids)] = -np.inf
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return log_p[:limit]


def check_score(log_p, decoder, result):
    ids = [*result.tokens, decoder.special.end][: len(log_p)]
    score = log_p[np.arange(len(ids)), ids].sum()
    assert result.avg_logprob == pytest.approx(score / (len(result.tokens) + 1), rel=1e-4)


def test_prompts_are_read_as_without_a_cache(decoders, loaded):
    decoder, audio = decoders[0], expected("whisper_words")["audio"]
    decoder.task = "translate"
    assert decoder.prompt(()) == (301,)
    # Half of the 25 positions, as n_ctx // 2 - 1 tokens of text in openai/whisper.
    assert decoder.prompt(range(99)) == (308, *range(99 - 11, 99), 301)
    prompts = [[5, 6, 7], [], list(range(40, 60))]
    heard = decoder.listen(list(audio), prompts)
    found = decoder.transcribe(heard, prompts, ["fr"] * len(audio))
    forced = decoder.special.forced("fr", "translate", timestamps=False)
    befores = [[*decoder.prompt(prompt), *forced] for prompt in prompts]
    texts = [[*before, *result.tokens][:25] for before, result in zip(befores, found)]
    limit = 25 - len(befores[2]) + 1  # the model does not read the last one
    assert max(len(result.tokens) for result in found) == limit
    for row, (logits, before, result) in enumerate(zip(forward(loaded, texts), befores, found)):
        begin = len(before) - len(forced) - 1
        np.testing.assert_allclose(heard.logits[row], logits[begin], atol=2e-5)
        log_p = log_probabilities(logits, decoder, before, result, limit)
        assert log_p.argmax(1).tolist()[: len(result.tokens)] == list(result.tokens)
        check_score(log_p, decoder, result)


def test_beams_score_whole_transcripts(decoders, loaded):
    audio = list(expected("whisper_words")["audio"])
    prompts, languages = [[]] * len(audio), ["en"] * len(audio)
    settings = {"timestamps": False, "batch_size": len(audio), "thresholds": GREEDY}
    wide = make_decoder(loaded, beams=4, **settings)
    found = wide.transcribe(wide.listen(audio, prompts), prompts, languages)
    greedy = decoders[0]
    greedy.task = "transcribe"
    narrow = greedy.transcribe(greedy.listen(audio, prompts), prompts, languages)
    before = [wide.special.start, *wide.special.forced("en", "transcribe", timestamps=False)]
    logits = forward(loaded, [[*before, *result.tokens] for result in found])
    for row, result in enumerate(found):
        check_score(log_probabilities(logits[row], wide, before, result), wide, result)
    assert sum(x.avg_logprob for x in found) > sum(x.avg_logprob for x in narrow)


def decoded(ratio, logprob, no_speech):
    return Decoded((), "", 0.0, logprob, ratio, no_speech)


def test_thresholds():
    rules = Thresholds()
    assert not rules.rejects(decoded(2.3, -0.9, 0.9))
    assert rules.rejects(decoded(2.5, -0.9, 0.9)) and rules.rejects(decoded(1.0, -1.1, 0.5))
    silent = decoded(9.0, -1.1, 0.7)
    assert rules.is_silent(silent) and not rules.rejects(silent)
    assert not rules.is_silent(decoded(1.0, -0.5, 0.99))
    with pytest.raises(ValueError, match="at least one"):
        Thresholds(())
    assert compression_ratio("ab" * 100) > 10 > compression_ratio("A short text.")


@pytest.fixture(scope="module")
def long_form(loaded, folder):
    """Every recording one by one, and the seconds that were reported."""
    seconds = []
    files = [folder / n for n in ("long.wav", "cut.wav", "silence.wav", "gap.wav", "stereo.wav")]
    results = transcribe(
        loaded, files, thresholds=GREEDY, word_timestamps=True, advance=seconds.append
    )
    return {path.rpartition("/")[2]: found for path, found in results}, sum(seconds)


def test_long_recordings_by_sliding_windows(long_form):
    found, seconds = long_form
    assert seconds == pytest.approx(2.3 + 1.0 + 0.46 + 3000 / RATE + 0.4, abs=0.35)
    segments = found["long.wav"].segments
    assert len(segments) > 2 and found["long.wav"].seconds == pytest.approx(2.3)
    assert segments[-1].end > 1.5
    for before, after in zip(segments, segments[1:]):
        # Each window begins at a timestamp of the one before it.
        assert after.start >= before.start - 0.02
    for segment in segments:
        assert 0 <= segment.start <= segment.end <= 2.3 + 0.02 and segment.text.strip()
        assert "".join(w.word for w in segment.words).strip() == segment.text.strip()
        times = [t for w in segment.words for t in (w.start, w.end)]
        assert times == sorted(times) == [round(t, 3) for t in times]
        assert (times[0], times[-1]) == (segment.start, segment.end)
    assert found["gap.wav"].segments[0].start >= 0.26
    assert found["silence.wav"].text == "" and not found["silence.wav"].segments
    assert found["stereo.wav"].segments
    assert "is truncated" in str(found["cut.wav"])


def test_batches_hold_windows_of_all_recordings(loaded, folder):
    names = ("empty.wav", "long.wav", "short.flac", "silence.wav", "gap.wav")
    files = [folder / n for n in names]
    results = transcribe(loaded, files, batch_size=3, thresholds=GREEDY, language="fr")
    found = {path.rpartition("/")[2]: x for path, x in results}
    assert set(found) == set(names) and "0 bytes" in str(found["empty.wav"])
    segments = found["long.wav"].segments
    starts = [segment.start for segment in segments]
    assert starts == sorted(starts) and segments[-1].end > 1.8
    assert found["silence.wav"].segments == [] and found["gap.wav"].segments[0].start >= 0.2
    assert found["short.flac"].language == "fr"
    # A recording of one window does not depend on the others of its batch.
    ((_, alone),) = transcribe(
        loaded, [folder / "short.flac"], thresholds=GREEDY, language="fr", batch_size=3
    )
    assert alone.segments
    assert [s.tokens for s in alone.segments] == [s.tokens for s in found["short.flac"].segments]


def test_rejected_windows_are_sampled_again(decoders):
    decoder, audio = decoders[0], list(expected("whisper_words")["audio"])
    prompts, languages = [[]] * len(audio), ["en"] * len(audio)
    heard = decoder.listen(audio, prompts)

    def run(*temperatures, **limits):
        decoder.thresholds = Thresholds(temperatures, **{**NO_LIMITS, **limits})
        return decoder.transcribe(heard, prompts, languages)

    first = run(0.0, 0.5, 1.0)
    assert [x.temperature for x in first] == [0.0] * len(audio)
    # Between the log-probabilities of two rows: one is sampled again, to the last temperature.
    low, *_, high = sorted(x.avg_logprob for x in first)
    again = run(0.0, 1e-4, 0.5, logprob=(low + high) / 2)
    for before, after in zip(first, again):
        if before.avg_logprob >= (low + high) / 2:
            assert after == before
        else:
            # At a temperature near 0 the sample is the greedy one, rejected again.
            assert after.temperature == 0.5
    nearly_greedy = run(0.0, 1e-4, logprob=1.0)
    assert [x.tokens for x in nearly_greedy] == [x.tokens for x in first]
    scores = [x.avg_logprob for x in nearly_greedy]
    assert scores == pytest.approx([x.avg_logprob for x in first], rel=1e-4)


def test_settings_that_the_model_does_not_have(loaded, folder, tmp_path):
    files = [folder / "short.flac"]
    english = with_generation(loaded, is_multilingual=False)
    for model, settings, message in (
        (loaded, {"language": "eng"}, "no language 'eng'. Did you mean 'en'[?] It has en, fr"),
        (loaded, {"task": "sing"}, "use one of transcribe, translate"),
        (loaded, {"batch_size": 0}, "use 1 or more"),
        (english, {"task": "translate"}, "English only and cannot translate"),
        (english, {"language": "fr"}, "knows English only"),
        (tmp_path / "none", {}, "no folder"),
        (GOLDEN / "gpt2", {}, "does not transcribe"),
    ):
        with pytest.raises(ValueError, match=message):
            transcribe(model, files, **settings)
    with pytest.raises(ValueError, match="The format is 'doc'"):
        outputs(["a.wav"], ["doc"], ".")
    with pytest.raises(ValueError, match="have one name"):
        outputs(["a/x.wav", "b/x.mp3"], ["txt"], ".")
    assert outputs(["a/x.wav", "b/x.mp3"], [], ".") == {}  # printed
    with pytest.raises(ValueError, match="give another --output"):
        outputs(["a.wav"], ["txt"], folder / "empty.wav" / "texts")


def run(*words):
    return commands.run("-m", "mmjax.transcribe", *words, f"--model={FOLDER}")


def test_the_command_writes_what_it_can(folder, tmp_path):
    files = [folder / name for name in ("cut.wav", "short.flac", "silence.wav")]
    done = run(*files, "--format=txt,srt,vtt,json", f"--output={tmp_path / 'texts'}")
    assert done.returncode == 2
    assert "error: 1 of 3 files have no transcript: see above." in done.stderr
    assert f"{files[0]}: the WAV file ends after" in done.stderr
    written = sorted(path.name for path in (tmp_path / "texts").iterdir())
    assert written == [
        f"{n}.{f}" for n in ("short", "silence") for f in ("json", "srt", "txt", "vtt")
    ]
    assert json.loads((tmp_path / "texts" / "silence.json").read_text())["text"] == ""


def test_the_command_is_one_sentence_where_nothing_can_be_transcribed(folder):
    done = run(folder / "empty.wav")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(f"error: Cannot transcribe '{folder}/empty.wav'")
