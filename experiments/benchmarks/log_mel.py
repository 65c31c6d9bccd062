"""Log-mel spectrograms per second on CPU: ours on the host against librosa and torchaudio, in the
same interleaved run.

    python experiments/benchmarks/log_mel.py                  # all: sets up the peers, once
    python experiments/benchmarks/log_mel.py --workloads whisper --rounds 2

Noise at 16 kHz, in fp32, clip by clip. `whisper`: clips of 30 seconds, 80 mels, windows of 25 ms
every 10 ms, and Whisper's logarithm. `librosa`: clips of 2 seconds, 128 mels, librosa's windows of
2048 samples every 512, in decibels. The peers make their mel power spectrograms (the same filters),
and the same logarithm by their own functions. Each contender is a process of its own, warmed up
beforehand; in every round they take turns, and a ratio is the median over rounds of (peer's time /
ours in that round), above 1 where ours is faster. Peers and we may use both cores.

The peers are installed in build/bench-venv (see workers.py).
"""

import sys

from workers import asked_for, compare, measure_each, options, work

# clips of a step, seconds, mels, window, hop
WORKLOADS = {"whisper": (10, 30, 80, 400, 160), "librosa": (100, 2, 128, 2048, 512)}


def clips(workload):
    """[clips, samples] float32."""
    import numpy as np

    count, seconds, *_ = WORKLOADS[workload]
    return np.random.default_rng(0).normal(size=(count, seconds * 16000)).astype(np.float32) / 10


def ours(workload):
    """mmjax.data.transforms.spectrogram with NumPy."""
    from mmjax.data.transforms import spectrogram as s

    _, _, mels, window, hop = WORKLOADS[workload]

    def log_mel(x):
        if workload == "whisper":
            return s.whisper(x, mels)
        filters = s.mel_filters(16000, window, mels)
        return s.decibels(s.mel_power(x, s.Frames(window, hop, edges="constant"), filters), 80.0)

    return log_mel


def librosa(workload):
    """librosa.feature.melspectrogram, and NumPy or librosa.power_to_db."""
    import librosa
    import numpy as np

    _, _, mels, window, hop = WORKLOADS[workload]

    def log_mel(x):
        mel = librosa.feature.melspectrogram(
            y=x, sr=16000, n_fft=window, hop_length=hop, n_mels=mels
        )
        if workload == "librosa":
            return librosa.power_to_db(mel)
        log = np.log10(np.maximum(mel[:, :-1], 1e-10))
        return (np.maximum(log, log.max() - 8) + 4) / 4

    return log_mel


def torchaudio(workload):
    """torchaudio.transforms.MelSpectrogram, and torch or torchaudio.transforms.AmplitudeToDB."""
    import torch
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    torch.set_num_threads(2)
    _, _, mels, window, hop = WORKLOADS[workload]
    scale = {"norm": "slaney", "mel_scale": "slaney"}
    mel_of = MelSpectrogram(16000, window, hop_length=hop, n_mels=mels, **scale)
    decibels = AmplitudeToDB("power", 80.0)

    def log_mel(x):
        mel = mel_of(torch.from_numpy(x))
        if workload == "librosa":
            return decibels(mel)
        log = mel[:, :-1].clamp(min=1e-10).log10()
        return (torch.maximum(log, log.max() - 8) + 4) / 4

    return log_mel


CONTENDERS = {"ours": ours, "librosa": librosa, "torchaudio": torchaudio}


def build(name, workload):
    """step() -> the sum of one clip's features, after those of all clips."""
    log_mel, waveforms = CONTENDERS[name](workload), clips(workload)

    def step():
        for x in waveforms:
            found = log_mel(x)
        return found.sum()

    return step


def main():
    parser = options(__doc__.splitlines()[0], CONTENDERS, WORKLOADS, dtypes=["float32"])
    seconds = {name: count * each for name, (count, each, *_) in WORKLOADS.items()}
    measure_each(parser.parse_args(), compare(__file__, seconds.get, "seconds of sound"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        name, workload, _, steps = asked_for(sys.argv)
        work(name, workload, steps, lambda: build(name, workload["name"]))
    else:
        main()
