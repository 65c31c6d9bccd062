"""Make tests/golden/whisper{,_words}/ with transformers' Whisper at small random sizes.

    python tests/golden/make_whisper.py

Made with torch 2.13.0, transformers 5.23.0 and tokenizers 0.23.3. The weights are in half precision
and the outputs in full. `whisper` has other numbers of heads and layers in its two towers, and no
tokenizer; `whisper_words` has the special tokens of a multilingual model, in its order.
"""

import json

import numpy as np
import tokenizers as hf
import torch
from golden_files import write
from small_models import byte_level, folder, padded, redraw, write_json
from transformers import WhisperConfig, WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import sinusoids
from transformers.utils import ModelOutput

NEW = 12
LANGUAGES = ("en", "zh", "fr")
SPECIALS = (
    *("<|endoftext|>", "<|startoftranscript|>", *(f"<|{x}|>" for x in LANGUAGES)),
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"),
    "<|notimestamps|>",
)


def spoken(config, batch=3):
    """Random features [B, frames, mels] of the whole length."""
    rng = np.random.default_rng(0)
    shape = (batch, 2 * config.max_source_positions, config.num_mel_bins)
    return torch.tensor(rng.normal(size=shape).astype(np.float32))


def make(name, **sizes):
    """A folder with a model, and the model in fp32 that has the values of its files."""
    out = folder(__file__, name)
    model = redraw(WhisperForConditionalGeneration(WhisperConfig(**sizes)))
    decoder, encoder = model.model.decoder, model.model.encoder
    fixed = sinusoids(*encoder.embed_positions.weight.shape)
    encoder.embed_positions.weight.copy_(fixed)
    decoder.embed_positions.weight.mul_(3)  # texts that vary
    decoder.layer_norm.weight.mul_(2)
    model.half().save_pretrained(out)
    (out / "generation_config.json").unlink()
    model.float()
    encoder.embed_positions.weight.copy_(fixed)
    model.set_attn_implementation("eager")  # which returns its weights
    return out, model


def greedy(model, audio, prompt):
    """The most probable continuation of each prompt [B, P]: [B, NEW]."""
    heard = model.model.encoder(audio.transpose(1, 2))
    ids = prompt
    for _ in range(NEW):
        logits = model(encoder_outputs=heard, decoder_input_ids=ids).logits
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], 1)
    return ids[:, prompt.shape[1] :]


def results(model, low, high, prompt):
    """What the model makes of features and padded texts."""
    audio = spoken(model.config)
    ids, mask = padded([12, 7, 3], 12, low, high, seed=1)
    found = model(
        audio.transpose(1, 2),
        decoder_input_ids=ids,
        decoder_attention_mask=mask.long(),
        output_hidden_states=True,
        output_attentions=True,
    )
    labels = torch.roll(ids, -1, 1).masked_fill(~torch.roll(mask, -1, 1), -100)
    labels[:, -1] = -100
    loss = torch.nn.functional.cross_entropy(found.logits.transpose(1, 2), labels)
    return {
        "audio": audio,
        "audio_layers": torch.stack(found.encoder_hidden_states),
        "audio_tokens": found.encoder_last_hidden_state,
        "text": ids.int(),
        "text_mask": mask,
        "text_layers": torch.stack(found.decoder_hidden_states),
        "text_logits": found.logits,
        "cross_attention": torch.stack(found.cross_attentions),
        "loss": loss,
        "prompt": prompt.int(),
        "greedy": greedy(model, audio, prompt).int(),
    }


def plain():
    out, model = make(
        "whisper",
        vocab_size=100,
        num_mel_bins=7,
        d_model=24,
        encoder_layers=2,
        encoder_attention_heads=3,
        encoder_ffn_dim=40,
        decoder_layers=3,
        decoder_attention_heads=4,
        decoder_ffn_dim=36,
        max_source_positions=77,
        max_target_positions=30,
        pad_token_id=98,
        bos_token_id=98,
        eos_token_id=98,
        decoder_start_token_id=99,
        begin_suppress_tokens=None,
    )
    prompt = torch.tensor([[99, 5, 17], [99, 8, 2], [99, 40, 41]])
    found = results(model, 0, 98, prompt)
    del found["cross_attention"]  # large
    write(out, **found)


def words():
    size = 300
    first = size + len(SPECIALS)  # <|0.00|>
    out, model = make(
        "whisper_words",
        vocab_size=first + 24,
        num_mel_bins=5,
        d_model=20,
        encoder_layers=3,
        encoder_attention_heads=2,
        encoder_ffn_dim=20,
        decoder_layers=2,
        decoder_attention_heads=5,
        decoder_ffn_dim=28,
        max_source_positions=23,
        max_target_positions=25,
        pad_token_id=size,
        bos_token_id=size,
        eos_token_id=size,
        decoder_start_token_id=size + 1,
        begin_suppress_tokens=None,
        activation_function="relu",
    )
    tokenizer = byte_level(out, size, [], wrapped=False)
    vocab = tokenizer.get_vocab()
    vocab |= {f"x{i}": i for i in range(len(vocab), size)}
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    whole = hf.Tokenizer(hf.models.BPE(vocab, [tuple(m) for m in merges]))
    whole.pre_tokenizer, whole.decoder = tokenizer.pre_tokenizer, tokenizer.decoder
    whole.add_special_tokens(list(SPECIALS))
    times = [f"<|{0.02 * i:.2f}|>" for i in range(24)]
    whole.add_tokens([hf.AddedToken(x, normalized=False, special=False) for x in times])
    whole.save(str(out / "tokenizer.json"), pretty=False)
    write_json(out / "tokenizer_config.json", {"tokenizer_class": "WhisperTokenizer"})
    heads = [[0, 1], [1, 0], [1, 4]]
    write_json(
        out / "generation_config.json",
        {
            "alignment_heads": heads,
            "begin_suppress_tokens": [3, size],
            "is_multilingual": True,
            "suppress_tokens": [1, 2],
        },
    )
    start, en = size + 1, size + 2
    prompt = torch.tensor([[start, en, size + 6, first - 1]] * 3)
    found = results(model, 0, size, prompt)
    outputs = ModelOutput(
        sequences=found["text"],
        cross_attentions=[tuple(found["cross_attention"])],
    )
    times = model._extract_token_timestamps(outputs, heads, num_input_ids=0)
    write(out, **found, token_times=times)


if __name__ == "__main__":
    with torch.no_grad():
        plain()
        words()
