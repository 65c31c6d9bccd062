"""What the scripts that make golden files share. Needs torch."""

import json

import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

LINES = ("a red bus and a blue car", "two small dogs run over the grass", "a cup of tea, half full")


def randomize(model, seed=0):
    """Every parameter moved away from its initial value, so that none can be left out unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += 0.1 * noise
    return model


def tokenizer_json(folder, *specials, vocab_size):
    """A small tokenizer.json, whose last ids are the specials; fills the vocabulary up to it."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=specials[-1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=vocab_size - len(specials))
    tokenizer.train_from_iterator(LINES, trainer)
    words = tokenizer.get_vocab()
    while len(words) < vocab_size - len(specials):
        words[f"word{len(words)}"] = len(words)
    words |= {name: vocab_size - len(specials) + i for i, name in enumerate(specials)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=specials[-1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(specials))
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict(zip(("bos_token", "eos_token"), specials)) if len(specials) == 2 else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def write(folder, **arrays):
    """expected.safetensors: inputs and outputs by name."""

    def as_numpy(x):
        if isinstance(x, torch.Tensor):
            x = (x.float() if x.is_floating_point() else x).detach().numpy()
        return x.copy()

    plain = {name: as_numpy(x) for name, x in arrays.items()}
    save_file(plain, folder / "expected.safetensors")
