"""Weights, inputs and tokenizers for the golden folders of models of text. Needs torch."""

import json
import shutil
from pathlib import Path

import numpy as np
import tokenizers as hf
import torch
from golden_files import LINES

# A small text tower of BERT's kind, for `wordpiece`.
TEXT = {"vocab_size": 160, "hidden_size": 24, "num_hidden_layers": 2}
TEXT |= {"intermediate_size": 40, "max_position_embeddings": 20}


def redraw(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The model for evaluation, with every parameter and statistic drawn anew.

    Matrices keep activations near unit size; scales lie around 1, biases around 0.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        statistics = [(k, v) for k, v in model.named_buffers() if "running_" in k]
        for name, p in [*model.named_parameters(), *statistics]:
            if name.endswith(("logit_scale", "temperature")):
                continue
            if name.endswith("running_var"):
                p.copy_(0.5 + torch.rand_like(p))
            elif p.ndim < 2:
                p.copy_(0.2 * torch.randn_like(p) + ("norm" in name.lower() or "ln_" in name))
                if name.endswith(("bias", "beta", "running_mean")):
                    p.copy_(0.2 * torch.randn_like(p))
            else:
                p.normal_(0, 1.5 * (p[0].numel() if p.ndim > 2 else p.shape[-1]) ** -0.5)
    return model.eval()


def folder(script: str, name: str | None = None) -> Path:
    """An empty folder beside the script make_<name>.py, called <name>."""
    out = Path(script).parent / (name or Path(script).stem.removeprefix("make_"))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    return out


def write_json(path: Path, value: dict) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value, indent=2) + "\n")


def padded(lengths: list[int], length: int, low: int, high: int, pad: int = 0, seed: int = 0):
    """Random ids [B, length] in low..high-1, padded on the right, and their mask, as tensors."""
    rng = np.random.default_rng(seed)
    mask = np.arange(length)[None] < np.asarray(lengths)[:, None]
    ids = np.where(mask, rng.integers(low, high, mask.shape), pad)
    return torch.tensor(ids), torch.tensor(mask)


def images(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Random pictures [B, H, W, 3] uint8."""
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.integers(0, 256, (batch, height, width, 3), np.uint8))


def pixel_values(image: torch.Tensor, mean, std) -> torch.Tensor:
    """[B, H, W, 3] uint8 -> [B, 3, H, W], normalised."""
    x = (image.double() / 255 - torch.tensor(mean).double()) / torch.tensor(std).double()
    return x.permute(0, 3, 1, 2).float().contiguous()


def wordpiece(out: Path, vocab_size: int) -> hf.Tokenizer:
    """A BERT tokenizer of a few lines, as tokenizer.json: [PAD] 0, [CLS] 2, [SEP] 3."""
    tokenizer = hf.Tokenizer(hf.models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = hf.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = hf.trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.decoder = hf.decoders.WordPiece()
    tokenizer.post_processor = hf.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    return tokenizer


def byte_level(out: Path, vocab_size: int, specials: list[str], wrapped: bool) -> hf.Tokenizer:
    """A byte-level BPE of a few lines, as tokenizer.json, its specials first.

    Args:
      wrapped: texts are put between "<s>" and "</s>", as RoBERTa's.
    """
    tokenizer = hf.Tokenizer(hf.models.BPE())
    tokenizer.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = hf.decoders.ByteLevel()
    trainer = hf.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    if wrapped:
        ends = [(t, tokenizer.token_to_id(t)) for t in ("</s>", "<s>")]
        tokenizer.post_processor = hf.processors.RobertaProcessing(*ends)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    return tokenizer


def continued(model, ids: torch.Tensor, mask: torch.Tensor, **stop) -> dict[str, torch.Tensor]:
    """What a language model makes of padded texts, and ten tokens of its own after the first six.

    Args:
      stop: settings of `generate`, such as an end token that it never writes.
    """
    with torch.inference_mode():
        found = model(ids, attention_mask=mask.long(), output_hidden_states=True)
        settings = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": 0, **stop}
        written = model.generate(ids[:1, :6], **settings)
    return {
        "text": ids.int(),
        "text_mask": mask,
        "text_logits": found.logits,
        "written": written.int(),
        "text_layers": torch.stack(found.hidden_states),
    }


def embedded(model, height: int, width: int, mean, std) -> dict[str, torch.Tensor]:
    """What a model with two towers makes of three random pictures and padded texts."""
    ids, mask = padded([12, 7, 3], 12, 5, 160)
    image = images(3, height, width)
    with torch.inference_mode():
        found = model(ids, pixel_values(image, mean, std), mask.long())
        text = model.text_model(ids, mask.long(), output_hidden_states=True)
    return {
        "image": image,
        "text": ids.int(),
        "text_mask": mask,
        "image_embed": found.image_embeds,
        "text_embed": found.text_embeds,
        "logits_per_image": found.logits_per_image,
        "text_layers": torch.stack(text.hidden_states),
    }
