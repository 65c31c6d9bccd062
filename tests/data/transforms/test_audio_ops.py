import io
import struct
import wave

import numpy as np
import pytest
import soundfile
from digits import wav

from mmjax.data.transforms import audio_ops

RNG = np.random.default_rng(0)


def test_decode_wav():
    waveform, rate = audio_ops.decode_audio(wav([0, 16384, -32768]))
    np.testing.assert_array_equal(waveform, np.float32([0, 0.5, -1]))
    assert rate == 8000 and waveform.dtype == np.float32
    stereo, _ = audio_ops.decode_audio(wav([100, 300, 0, -200], channels=2))
    np.testing.assert_allclose(stereo, np.float32([200, -100]) / 32768)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_16_bit_wav_is_what_the_standard_library_reads(channels):
    data = wav(RNG.integers(-32768, 32768, 900), rate=44100, channels=channels)
    with wave.open(io.BytesIO(data)) as file:
        samples = np.frombuffer(file.readframes(900), "<i2").astype(np.float32) / 32768
    waveform, rate = audio_ops.decode_audio(data)
    np.testing.assert_array_equal(waveform, samples.reshape(-1, channels).mean(axis=1))
    assert rate == 44100


def riff(code, bits, samples, extra=b""):
    """A mono WAV file of 16 kHz, written by hand after Microsoft's "Multiple channel audio data
    and WAVE files"; `code` is the format's, `extra` what an extensible format adds."""
    form = struct.pack("<HHIIHH", code, 1, 16000, 2000 * bits, bits // 8, bits) + extra
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
# valid bits, speaker mask, and the GUID of PCM, 00000001-0000-0010-8000-00AA00389B71
EXTRA = struct.pack("<HHI", 22, 16, 4) + bytes.fromhex("0100000000001000800000aa00389b71")
TWO_THIRDS = [0, 2796202, -2796202, -8388608, 8388607]  # of 24 bits


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (
            riff(EXTENSIBLE, 16, struct.pack("<4h", 0, 16384, -32768, 1), EXTRA),
            [0, 0.5, -1, 2**-15],
        ),
        (
            riff(PCM, 24, b"".join(x.to_bytes(3, "little", signed=True) for x in TWO_THIRDS)),
            np.array(TWO_THIRDS) / 2**23,
        ),
        (riff(PCM, 32, struct.pack("<3i", 0, 2**30, -(2**31))), [0, 0.5, -1]),
        (riff(PCM, 8, bytes([128, 192, 0])), [0, 0.5, -1]),
        (riff(FLOAT, 32, struct.pack("<4f", 0, 0.1, -1, 1.5)), np.float32([0, 0.1, -1, 1.5])),
        (riff(FLOAT, 64, struct.pack("<2d", 0.25, -0.1)), np.float32([0.25, -0.1])),
    ],
    ids=["extensible", "24-bit", "32-bit", "8-bit", "float", "double"],
)
def test_other_kinds_of_wav(data, wanted):
    waveform, rate = audio_ops.decode_audio(data)
    np.testing.assert_array_equal(waveform, np.float32(wanted))
    assert rate == 16000 and waveform.dtype == np.float32


@pytest.mark.parametrize(
    ("format", "subtype"), [("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("WAV", "ULAW")]
)
def test_other_formats(format, subtype):
    tone = 0.5 * np.sin(np.arange(16000) * 2 * np.pi * 440 / 16000)
    out = io.BytesIO()
    soundfile.write(out, np.stack([tone, 0 * tone], 1), 16000, format=format, subtype=subtype)
    waveform, rate = audio_ops.decode_audio(out.getvalue())
    assert rate == 16000 and waveform.shape == (16000,)
    near = slice(2000, -2000)  # OPUS is not exact at the ends
    np.testing.assert_allclose(
        waveform[near], tone[near] / 2, atol=2**-23 if format == "FLAC" else 0.02
    )


def test_what_is_no_audio_is_refused():
    with pytest.raises(ValueError, match="there is no audio .0 bytes."):
        audio_ops.decode_audio(b"")
    with pytest.raises(ValueError, match="the audio has no samples"):
        audio_ops.decode_audio(wav([]))
    for data in (b"OggS and more", wav([1, 2])[:20]):
        with pytest.raises(ValueError, match="are no audio that libsndfile reads"):
            audio_ops.decode_audio(data)
    with pytest.raises(ValueError, match="samples that are not finite"):
        audio_ops.decode_audio(riff(FLOAT, 32, struct.pack("<2f", 0, np.nan)))


@pytest.mark.parametrize(
    "head",
    [b"\0\0\0\x20ftypisom", b"\x1aE\xdf\xa3", b"RIFF\0\0\1\0AVI LIST", b"FLV\1", b"0&\xb2u\x8ef"],
)
def test_a_video_container_is_named_and_the_command_that_helps(head):
    with pytest.raises(ValueError, match="this is an? .*: extract its sound by ffmpeg -i"):
        audio_ops.decode_audio(head + bytes(5000))


def test_a_truncated_wav_is_refused():
    data = wav(np.arange(100))
    with pytest.raises(ValueError, match="ends after 150 of the 200 bytes that it declares"):
        audio_ops.decode_audio(data[:-50])
    piped = bytearray(data)
    piped[40:44] = b"\xff" * 4  # the length as programs write it to a pipe
    assert len(audio_ops.decode_audio(bytes(piped))[0]) == 100


@pytest.mark.parametrize(
    "kind, subtype",
    [
        *(("OGG", x) for x in ("VORBIS", "OPUS")),
        *((x, "PCM_16") for x in ("AIFF", "AU", "W64", "RF64", "CAF", "FLAC")),
        *((x, "PCM_16") for x in ("SVX", "NIST", "VOC")),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_a_truncated_file_is_refused(kind, subtype, tmp_path):
    """Without a check libsndfile reads half of these as shorter files, without a word."""
    out = io.BytesIO()
    noise = np.random.default_rng(0).normal(size=48000) / 10
    soundfile.write(out, noise, 48000, format=kind, subtype=subtype)
    data = out.getvalue()
    assert len(audio_ops.decode_audio(data)[0]) == 48000
    (tmp_path / "a").write_bytes(data[: len(data) * 6 // 10])
    for given in (data[: len(data) * 6 // 10], tmp_path / "a"):
        with pytest.raises(ValueError, match="it is truncated, copy it again|no audio that"):
            audio_ops.decode_audio(given)


def test_a_stream_of_unknown_length_is_refused():
    out = io.BytesIO()
    soundfile.write(out, np.zeros(100), 16000, format="FLAC")
    stream = bytearray(out.getvalue())
    stream[21] &= 0xF0  # STREAMINFO's number of samples, 36 bits: 0 is unknown
    stream[22:26] = bytes(4)
    with pytest.raises(ValueError, match="header gives no usable length"):
        audio_ops.decode_audio(bytes(stream))


def test_only_the_seconds_that_are_wanted_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_ops, "BLOCK", 1000)
    samples = RNG.integers(-9999, 9999, 2 * 20_000)
    (tmp_path / "a.wav").write_bytes(wav(samples, rate=8000, channels=2))
    whole, _ = audio_ops.decode_audio(tmp_path / "a.wav")
    np.testing.assert_array_equal(whole, (samples.reshape(-1, 2).mean(1) / 32768).astype("f"))
    part, _ = audio_ops.decode_audio(str(tmp_path / "a.wav"), seconds=0.30001)
    np.testing.assert_array_equal(part, whole[:2401])


@pytest.mark.parametrize(
    ("rate", "samples", "want"), [(44100, 1, 1), (44100, 1000, 363), (8000, 7, 14)]
)
def test_the_length_after_resampling_is_rounded_up(rate, samples, want):
    import soxr

    x = RNG.normal(size=samples).astype(np.float32)
    got = audio_ops.resample(x, rate, 16000)
    assert got.shape == (want,) and got.dtype == np.float32
    assert len(soxr.resample(x, rate, 16000)) == round(samples * 16000 / rate)


def test_resampling_keeps_a_tone():
    data = wav(16000 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100), rate=44100)
    got = audio_ops.decode_at(data, 16000)
    want = 16000 / 32768 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(got[500:-500], want[500:-500], atol=1e-4)
