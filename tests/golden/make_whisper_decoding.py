"""Make tests/golden/whisper_words/decoding.json: what transformers generates with that model.

    python tests/golden/make_whisper_decoding.py

Made with transformers 5.23.0 and torch 2.13.0: greedy decoding of the folder's `audio` for all
combinations of language, task and timestamps, and the probabilities after the begin token.
"""

import itertools
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    WhisperForConditionalGeneration,
)
from transformers.generation.logits_process import (
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)

FOLDER = Path(__file__).parent / "whisper_words"
NEW = 12  # half of the model's 25 positions
CODES, TASKS = ("en", "zh", "fr"), ("transcribe", "translate")


def main():
    """Write the file."""
    words = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    ids = {name[2:-2]: i for name, i in words.get_vocab().items() if name.startswith("<|")}
    end, start, first = ids["endoftext"], ids["startoftranscript"], ids["0.00"]
    model = WhisperForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32).eval()
    given = json.loads((FOLDER / "generation_config.json").read_text())
    audio = load_file(FOLDER / "expected.safetensors")["audio"]
    features = audio.transpose(1, 2).contiguous()
    # One window, not the sliding ones of WhisperForConditionalGeneration.generate.
    config = GenerationConfig(
        max_new_tokens=NEW,
        decoder_start_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
        do_sample=False,
        no_timestamps_token_id=first - 1,
        max_initial_timestamp_index=5,
    )
    never = [*given["suppress_tokens"], *(i for i in range(start, first) if i != first - 1)]

    def decode(prompt, timestamps):
        rules = [
            SuppressTokensLogitsProcessor(never),
            SuppressTokensAtBeginLogitsProcessor(given["begin_suppress_tokens"], len(prompt)),
        ]
        if timestamps:
            rules.append(WhisperTimeStampLogitsProcessor(config, len(prompt)))
        found = GenerationMixin.generate(
            model,
            features,
            generation_config=config,
            logits_processor=LogitsProcessorList(rules),
            decoder_input_ids=torch.tensor([prompt] * len(features)),
        )
        return [[i for i in row[len(prompt) :] if i != end] for row in found.tolist()]

    cases = []
    for language, task, timestamps in itertools.product(CODES, TASKS, (True, False)):
        prompt = [start, ids[language], ids[task], *([] if timestamps else [first - 1])]
        case = {"language": language, "task": task, "timestamps": timestamps}
        cases.append(case | {"tokens": decode(prompt, timestamps)})
    with torch.no_grad():
        logits = model(features, decoder_input_ids=torch.full((len(audio), 1), start)).logits[:, 0]
    languages = logits[:, [ids[code] for code in CODES]].softmax(-1).tolist()
    silence = logits.softmax(-1)[:, ids["nospeech"]].tolist()
    content = {"codes": CODES, "languages": languages, "no_speech": silence, "cases": cases}
    (FOLDER / "decoding.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
