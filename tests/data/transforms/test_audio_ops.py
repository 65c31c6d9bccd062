import io
import struct
import wave

import numpy as np
import pytest
import soundfile
from digits import wav
from scipy import signal

from mmjax.data.transforms import audio_ops
from mmjax.data.transforms import parse as transforms

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


@pytest.mark.parametrize(("format", "subtype"), [("FLAC", "PCM_24"), ("OGG", "VORBIS")])
def test_other_formats(format, subtype):
    tone = 0.5 * np.sin(np.arange(16000) * 2 * np.pi * 440 / 16000)
    out = io.BytesIO()
    soundfile.write(out, np.stack([tone, 0 * tone], 1), 16000, format=format, subtype=subtype)
    waveform, rate = audio_ops.decode_audio(out.getvalue())
    assert rate == 16000 and waveform.shape == (16000,)
    np.testing.assert_allclose(waveform, tone / 2, atol=2**-23 if format == "FLAC" else 0.02)


def test_what_is_no_audio_is_refused():
    for data in (b"", b"OggS and more", wav([1, 2])[:20]):
        with pytest.raises(ValueError, match="are no audio that libsndfile reads"):
            audio_ops.decode_audio(data)
    with pytest.raises(ValueError, match="samples that are not finite"):
        audio_ops.decode_audio(riff(FLOAT, 32, struct.pack("<2f", 0, np.nan)))
    out = io.BytesIO()
    soundfile.write(out, np.zeros(100), 16000, format="FLAC")
    stream = bytearray(out.getvalue())
    stream[21] &= 0xF0  # STREAMINFO's number of samples, 36 bits: 0 is unknown
    stream[22:26] = bytes(4)
    with pytest.raises(ValueError, match="header gives no usable length"):
        audio_ops.decode_audio(bytes(stream))


def test_mel_scale_against_published_values():
    # librosa's documentation of hz_to_mel, mel_to_hz and mel_frequencies(40).
    np.testing.assert_allclose(audio_ops.hz_to_mel([60, 110, 220, 440]), [0.9, 1.65, 3.3, 6.6])
    np.testing.assert_allclose(audio_ops.mel_to_hz([1, 2, 3, 4, 5]) * 3, [200, 400, 600, 800, 1000])
    points = audio_ops.mel_to_hz(np.linspace(0, audio_ops.hz_to_mel(11025), 40))
    published = {1: 85.317, 11: 938.49, 12: 1024.856, 20: 2071.84, 30: 4994.285, 39: 11025.0}
    for i, hz in published.items():
        np.testing.assert_allclose(points[i], hz, atol=1e-3)
    hz = np.linspace(1, 4000, 50)
    np.testing.assert_allclose(audio_ops.mel_to_hz(audio_ops.hz_to_mel(hz)), hz)


def test_filters_are_triangles_of_area_one():
    filters = audio_ops.mel_filters(16000, 4096, 20).astype(np.float64)
    np.testing.assert_allclose(filters.sum(1) * 16000 / 4096, 1, atol=0.01)
    corners = audio_ops.mel_to_hz(np.linspace(0, audio_ops.hz_to_mel(8000), 22))
    bins = np.arange(2049) * 16000 / 4096
    for i, row in enumerate(filters):
        want = np.interp(bins, corners[i : i + 3], [0, 2 / (corners[i + 2] - corners[i]), 0])
        np.testing.assert_allclose(row, want, atol=1e-7)


def test_too_many_filters_are_refused():
    with pytest.raises(ValueError, match="80 mel filters are too many for 64 samples"):
        audio_ops.mel_filters(8000, 64, 80)


@pytest.mark.parametrize("window_ms", [32, 25.125])  # 256 and 201 samples
def test_log_mel_against_scipy(window_ms):
    x = RNG.normal(size=1000).astype(np.float32)
    got = audio_ops.log_mel(x, 8000, 12, window_ms, 10)
    size = round(8 * window_ms)
    padded = np.pad(x, (size // 2, size - size // 2))
    _, _, z = signal.stft(
        padded, window="hann", nperseg=size, noverlap=size - 80, boundary=None, padded=False
    )
    power = np.abs(z.T * signal.get_window("hann", size).sum()) ** 2  # undo scipy's scaling
    assert got.shape == (1 + 1000 // 80, 12) and got.dtype == np.float32
    want = np.log(power @ audio_ops.mel_filters(8000, size, 12).T)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_a_tone_is_heard_in_its_own_filter():
    t = np.arange(8000) / 8000
    corners = audio_ops.mel_to_hz(np.linspace(0, audio_ops.hz_to_mel(4000), 34))
    for band in (3, 15, 28):
        tone = np.sin(2 * np.pi * corners[band + 1] * t)
        frame = audio_ops.log_mel(tone, 8000, 32)[50]
        assert frame.argmax() == band


def test_the_transform_pads_cuts_and_does_not_hear_how_loud_it_is():
    step = transforms.parse("log_mel(20, 8, top_db=40)")
    samples = RNG.integers(-3000, 3000, 9000)
    long = step({"audio": wav(samples)}, None)["audio"]
    short = step({"audio": wav(samples[:400])}, None)["audio"]
    assert short.shape == long.shape == (20, 8) and short.dtype == np.float32
    assert short.max() == long.max() == 1 and (short[-5:] == -1).all()
    louder = step({"audio": wav(3 * samples)}, None)["audio"]
    np.testing.assert_allclose(louder, long, atol=1e-3)
    # By hand: 20 dB below the loudest is in the middle of 40.
    whole = audio_ops.log_mel(samples[: 19 * 80] / 32768, 8000, 8) * 10 / np.log(10)
    np.testing.assert_allclose(long, 1 + (whole - whole.max()) / 20, atol=1e-3)
    silence = step({"audio": wav(np.zeros(400))}, None)["audio"]
    assert (silence == 1).all()
    with pytest.raises(ValueError, match="cannot decode 'audio' of example 'a'.*are no audio"):
        step({"audio": b"?", "key": "a"}, None)
