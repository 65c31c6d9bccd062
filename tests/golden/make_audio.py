"""Make tests/golden/audio/features.npz: what librosa, torchaudio and transformers compute from one
short waveform.

    pip install torch==2.13.0 torchaudio==2.11.0 transformers==5.23.0 librosa==0.11.0 soxr
    python tests/golden/make_audio.py

The waveform: a chord that is out of tune, with an echo of noise that fades in.
"""

from pathlib import Path

import librosa
import numpy as np
import torch
from torchaudio.compliance import kaldi
from torchaudio.transforms import MelSpectrogram
from transformers import ASTFeatureExtractor, ClapFeatureExtractor, WhisperFeatureExtractor

HERE = Path(__file__).parent / "audio"
SAMPLES = 9_001


def waveform():
    """[SAMPLES] float32 of 16 bits, so that it is stored exactly."""
    t = np.arange(SAMPLES) / 16000
    tones = sum(np.sin(2 * np.pi * f * 1.013 * t) for f in (220, 277.18, 329.63, 1760))
    noise = np.random.default_rng(0).normal(size=SAMPLES) * (0.3 + t)
    x = 0.1 * tones + 0.1 * noise
    return (np.round(x * 32768) / 32768).astype(np.float32)


def features(x):
    """Every array by name, [frames, features]."""
    found = {}
    for mels in (80, 128):
        extractor = WhisperFeatureExtractor(feature_size=mels)
        made = extractor(x, sampling_rate=16000, padding="do_not_pad", return_tensors="np")
        found[f"whisper_{mels}"] = made.input_features[0].T
    settings = {"window_type": "hanning", "dither": 0.0}
    torch_x = torch.from_numpy(x)
    found["kaldi"] = kaldi.fbank(torch_x[None], num_mel_bins=128, **settings).numpy()
    at_8k = {"num_mel_bins": 40, "sample_frequency": 8000}
    found["kaldi_8k"] = kaldi.fbank(torch_x[None], **at_8k, **settings).numpy()
    extractor = ASTFeatureExtractor(max_length=64)
    found["ast"] = extractor(x, sampling_rate=16000, return_tensors="np").input_values[0]
    clap = ClapFeatureExtractor(frequency_min=50)
    for name, filters in (("fusion", clap.mel_filters), ("rand_trunc", clap.mel_filters_slaney)):
        found[f"clap_{name}"] = clap._np_extract_fbank_features(x, filters)
    mel = librosa.feature.melspectrogram(y=x, sr=16000, n_mels=64)
    found["librosa_db"] = librosa.power_to_db(mel, ref=np.max, top_db=60).T
    htk = {"htk": True, "norm": None, "fmin": 50, "fmax": 7000, "n_mels": 40}
    mel = librosa.feature.melspectrogram(y=x, sr=16000, n_fft=400, hop_length=160, **htk)
    found["librosa_htk"] = librosa.power_to_db(mel, top_db=None).T
    found["librosa_zeros"] = librosa.feature.melspectrogram(y=x, sr=16000, n_mels=40, n_fft=512).T
    found["torchaudio_reflect"] = (
        MelSpectrogram(16000, 512, hop_length=512, n_mels=40, norm="slaney", mel_scale="slaney")(
            torch_x
        )
        .numpy()
        .T
    )
    found["mfcc"] = librosa.feature.mfcc(y=x, sr=16000, n_mfcc=13).T
    found["mfcc_40"] = librosa.feature.mfcc(
        y=x, sr=16000, n_mfcc=40, n_mels=40, n_fft=480, hop_length=160
    ).T
    for tuning in (0.0, -0.23, None):
        found[f"chroma_{tuning}"] = librosa.feature.chroma_stft(y=x, sr=16000, tuning=tuning).T
    power = np.abs(librosa.stft(x)) ** 2
    found["tuning"] = np.float64(librosa.estimate_tuning(S=power, sr=16000))
    for rate in (22050, 8000):
        found[f"resampled_{rate}"] = librosa.resample(x[:2000], orig_sr=16000, target_sr=rate)
    return found


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    x = waveform()
    stored = {k: np.asarray(v, np.float32) for k, v in features(x).items()}
    np.savez_compressed(HERE / "features.npz", waveform=(x * 32768).astype(np.int16), **stored)
