"""Encoders and decoders saved as published ones: loaded again, and by transformers where it is."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected, outputs

from mmjax.data.text.train_bpe import train_bpe
from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained, load, save_pretrained
from mmjax.variables import abstract_variables
from mmjax.weights.families import bert, gpt2, llama
from mmjax.weights.tensor_file import Renamed, Safetensors

TORCH = os.environ.get("MMJAX_TORCH_PYTHON", "build/bench-venv/bin/python")
DECODERS = {"gpt2": gpt2, **dict.fromkeys(("llama", "llama3", "mistral", "qwen2"), llama)}
FAMILIES = {"bert": bert, "roberta": bert, "minilm": bert, **DECODERS}
TEXTS = ["a red bus waits", "two dogs", "tea"]


@pytest.mark.parametrize("name", [*FAMILIES, "llama_tied"])
def test_golden_folder_comes_back_tensor_by_tensor(tmp_path, name):
    family = FAMILIES.get(name, llama)
    save_pretrained(load(GOLDEN / name), tmp_path / "out")
    theirs = Renamed(Safetensors(GOLDEN / name), family.canonical)
    ours = Safetensors(tmp_path / "out")
    ignored = {n for n in theirs.shapes if n not in ours.shapes}
    assert all(n.startswith("lm_head.") or n.endswith("attn.bias") for n in ignored), ignored
    for tensor in ours.shapes:
        np.testing.assert_array_equal(ours.read(tensor), theirs.read(tensor))
    before, after = (load(folder) for folder in (GOLDEN / name, tmp_path / "out"))
    assert after.config == before.config
    if before.tokenizer is not None:
        assert after.tokenizer.prompts(TEXTS) == before.tokenizer.prompts(TEXTS)


@pytest.mark.skipif(not Path(TORCH).exists(), reason="no python with torch: MMJAX_TORCH_PYTHON")
def test_saved_folders_in_transformers(tmp_path):
    """What transformers gives for our folders is what it gave for those that they came from; and
    for language models of ours, what we give."""
    for name in FAMILIES:
        save_pretrained(load(GOLDEN / name), tmp_path / name)
        shutil.copy(GOLDEN / name / "expected.safetensors", tmp_path / name)
    own = our_language_model()
    save_pretrained(own, tmp_path / "own")
    bare = our_language_model(head=False, norm="rms", gated_mlp=True, positions="rope")
    save_pretrained(bare, tmp_path / "bare")
    script = """
import sys, json, torch
from pathlib import Path
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging
logging.set_verbosity_error()
root, found = Path(sys.argv[1]), {}
texts, names, decoders = json.loads(sys.stdin.read())
for name in names:
    kind = AutoModelForCausalLM if name in decoders else AutoModel
    model, report = kind.from_pretrained(root / name, output_loading_info=True)
    want = load_file(root / name / "expected.safetensors")
    out = model.eval()(want["text"].long(), attention_mask=want["text_mask"].long())
    y = out.logits if "logits" in out else out.last_hidden_state
    keys = {k: sorted(report[k]) for k in ("missing_keys", "unexpected_keys")}
    found[name] = [y.tolist(), keys]
tokens = AutoTokenizer.from_pretrained(root / "own")(texts)["input_ids"]
for name, kind in (("own", AutoModelForCausalLM), ("bare", AutoModel)):
    model, report = kind.from_pretrained(root / name, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    found[name] = [tokens, model.eval()(torch.tensor([tokens[0]]))[0].tolist()]
print(json.dumps(found))
"""
    run = subprocess.run(
        [TORCH, "-c", script, tmp_path],
        input=json.dumps([TEXTS, [*FAMILIES], [*DECODERS]]),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    for name in FAMILIES:
        want, (given, keys) = expected(name), found[name]
        seen = want["text_mask"]
        if name != "minilm":
            theirs = want["text_logits"] if "text_logits" in want else want["text_layers"][-1]
            close(np.asarray(given)[seen], theirs[seen])
        unused = keys["missing_keys"]  # RobertaModel has a pooler, the masked model's file none
        assert not keys["unexpected_keys"] and all("pooler" in k for k in unused), keys
    for name, model, output in (("own", own, "text_logits"), ("bare", bare, "text_tokens")):
        tokens, given = found[name]
        assert [tuple(t) for t in tokens] == model.tokenizer.prompts(TEXTS)
        close(outputs(model, {"text": np.asarray(tokens[:1], np.int32)})[output], given)


def our_language_model(head=True, **decoder):
    """One of ours with random parameters: learned positions, as the default is."""
    words = train_bpe(TEXTS * 3, vocab_size=280)
    sizes = {"depth": 2, "heads": 2, "mlp_dim": 24, **decoder}
    text = {"vocab_size": 300, "width": 16, "length": 20, "tied": False, "decoder": sizes}
    config = {"name": "language_model", "text": text, "head": head}
    whole = {"model": config, "loss": {}}
    system, rng = make_system(whole), np.random.default_rng(0)
    model = system.model
    params = abstract_variables(model, system.spec)["params"]
    params = jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32), params)
    return Pretrained(config, model, params, words, 20, "", "")


def test_what_no_family_can_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'gpt2', which has no text.decoder.norm 'rms'.*'llama'"):
        save_pretrained(our_language_model(norm="rms"), tmp_path / "out")
    with pytest.raises(ValueError, match="text.kind 'BERT' .not 'TextTransformer'"):
        save_pretrained(load(GOLDEN / "chinese_clip"), tmp_path / "out", family="clip")
    assert not (tmp_path / "out").exists()
