"""Make timestamp_rules.safetensors: logits after transformers' rules of timestamps.

    python tests/golden/make_timestamp_rules.py

Made with transformers 5.23.0 and torch 2.13.0, on drawn histories that need not follow the rules.
openai-whisper 20250625's ApplyTimestampRules gives the same on all of them.
"""

import types
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

VOCAB, END, NO_TIMESTAMPS, ROWS, SLOTS = 40, 20, 24, 6, 11


def main():
    """Write the file: cases along the first axis, of which half have a first timestamp of 3 or
    less."""
    rng = np.random.default_rng(0)
    found = {name: [] for name in ("history", "count", "new", "logits", "expected")}
    for case in range(48):
        prompt, new = rng.integers(1, 5), case % 7
        history = rng.integers(0, VOCAB, (ROWS, prompt + new))
        times = rng.integers(NO_TIMESTAMPS + 1, VOCAB, history.shape)
        history = np.where(rng.random(history.shape) < 0.4, times, history)
        logits = rng.normal(size=(ROWS, VOCAB)).astype(np.float32) * np.float32([1, 4][case % 2])
        config = types.SimpleNamespace(
            no_timestamps_token_id=NO_TIMESTAMPS,
            eos_token_id=END,
            max_initial_timestamp_index=3 if case < 24 else None,
        )
        rules = WhisperTimeStampLogitsProcessor(config, begin_index=int(prompt))
        expected = rules(torch.tensor(history), torch.tensor(logits)).numpy()
        padded = np.pad(history, ((0, 0), (0, SLOTS - history.shape[1])))
        count = np.full(ROWS, history.shape[1])
        for name, x in zip(found, (padded, count, new, logits, expected)):
            found[name].append(x)
    arrays = {k: np.stack([np.asarray(x) for x in v]) for k, v in found.items()}
    arrays = {k: x if x.dtype == np.float32 else x.astype(np.int32) for k, x in arrays.items()}
    save_file(arrays, Path(__file__).with_name("timestamp_rules.safetensors"))


if __name__ == "__main__":
    main()
