"""Make tests/golden/{ast,ast_features}: small random ASTs of the original code, with what they give
for a waveform, layer by layer.

    pip install torch==2.13.0 torchaudio==2.11.0 transformers==5.23.0
    python tests/golden/make_ast.py

ast: with a head of 5 classes, and patches that do not fill the spectrogram. ast_features: no head,
no biases of queries, keys and values, half precision.
"""

from pathlib import Path

import numpy as np
import torch
import transformers as t
from golden_files import randomize, write

HERE = Path(__file__).parent
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def make(name, model, extractor, dtype=torch.float32):
    """One golden folder."""
    model = randomize(model).to(dtype).eval()
    folder = HERE / name
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    rng = np.random.default_rng(0)
    # Shorter than the spectrogram, and longer.
    clips = [(0.1 * rng.normal(size=n)).astype(np.float32) for n in (6000, 14000)]
    audio = extractor(clips, sampling_rate=16000, return_tensors="pt").input_values
    with torch.no_grad():
        out = model.float()(audio, output_hidden_states=True)
    kept = {"short": clips[0], "long": clips[1], "audio": audio}
    kept["layers"] = torch.stack(out.hidden_states)
    if "logits" in out:
        kept["logits"] = out.logits
    else:
        kept["features"] = out.pooler_output
    write(folder, **kept)


if __name__ == "__main__":
    torch.manual_seed(0)
    sides = {"max_length": 61, "num_mel_bins": 27}
    config = t.ASTConfig(
        **SIZES, **sides, patch_size=8, time_stride=5, frequency_stride=4, num_labels=5
    )
    extractor = t.ASTFeatureExtractor(**sides, mean=-5.5, std=3.25)
    make("ast", t.ASTForAudioClassification(config), extractor)
    sides = {"max_length": 50, "num_mel_bins": 32}
    config = t.ASTConfig(
        **SIZES, **sides, patch_size=10, time_stride=10, frequency_stride=10, qkv_bias=False
    )
    extractor = t.ASTFeatureExtractor(**sides, do_normalize=False)
    make("ast_features", t.ASTModel(config), extractor, torch.float16)
