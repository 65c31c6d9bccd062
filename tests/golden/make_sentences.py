"""Make tests/golden/sentences.json: what sentence-transformers makes of variants of minilm/.

    python tests/golden/make_sentences.py

Made with sentence-transformers 6.2.0, transformers 5.23.0 and torch 2.13.0. A case has JSON files
that replace those of the folder (null: none), the length of a text, and the pooled features.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "helpers"))

from sentence_folder import SETTINGS, sentence_folder  # noqa: E402

TEXTS = ["A red BUS", "two small dogs run over the grass and a blue car", "tea"]
TOKENIZER = "tokenizer_config.json"
PROMPTS, POOLING = "config_sentence_transformers.json", "1_Pooling/config.json"
OLD = "sentence_transformers.models"
NEW = "sentence_transformers.sentence_transformer.modules.pooling"


def modules(pooling: str = OLD) -> list[dict]:
    """An encoder and its pooling."""
    kinds = [("", f"{OLD}.Transformer"), ("1_Pooling", f"{pooling}.Pooling")]
    return [{"idx": i, "name": str(i), "path": p, "type": t} for i, (p, t) in enumerate(kinds)]


def cases() -> dict[str, dict]:
    """name -> files."""
    found = {
        "plain": {},
        "model_max_length": {SETTINGS: {"do_lower_case": False}, TOKENIZER: {
            "model_max_length": 7
        }},
        "nothing": {SETTINGS: None},
        "more than the table": {SETTINGS: None, TOKENIZER: {"model_max_length": 512}},
        "null": {SETTINGS: {"max_seq_length": None}, TOKENIZER: {"model_max_length": 6}},
        "roberta": {SETTINGS: None, "sentence_roberta_config.json": {"max_seq_length": 6}},
        "xlnet": {SETTINGS: None, "sentence_xlnet_config.json": {"max_seq_length": 5}},
        "empty first": {SETTINGS: {}, "sentence_albert_config.json": {"max_seq_length": 6}},
        "both": {SETTINGS: {"max_seq_length": 9}, "sentence_roberta_config.json": {
            "max_seq_length": 6
        }},
        "tokenizer_args": {SETTINGS: {
            "max_seq_length": 12, "tokenizer_args": {"model_max_length": 8}
        }},
        "cased": {TOKENIZER: {"do_lower_case": False}},
        "lowercased": {TOKENIZER: {"do_lower_case": False}, SETTINGS: {
            "max_seq_length": 16, "do_lower_case": True
        }},
        "default prompt": {PROMPTS: {
            "prompts": {"query": "a cup of ", "other": "red "}, "default_prompt_name": "query"
        }},
        "prompts": {PROMPTS: {"prompts": {"query": "a cup of "}}},
        "empty default": {PROMPTS: {"default_prompt_name": "query"}},
    }  # fmt: skip
    flags = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens")
    for flag in (*flags, "weightedmean_tokens", "lasttoken"):
        found[flag] = {POOLING: {"word_embedding_dimension": 24, f"pooling_mode_{flag}": True}}
    found["no flag"] = {POOLING: {"word_embedding_dimension": 24, "pooling_mode_cls_token": False}}
    for mode in ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"):
        found[f"new {mode}"] = {
            POOLING: {"embedding_dimension": 24, "pooling_mode": mode},
            "modules.json": modules(NEW),
        }
    for name, maps in {
        "dense": [(16, "activation.Tanh", True)],
        "two dense": [(16, "activation.ReLU", False), (8, "linear.Identity", True)],
    }.items():
        found[name], inputs, listed = {}, 24, modules()
        for i, (width, activation, bias) in enumerate(maps):
            path = f"{2 + i}_Dense"
            listed.append({"idx": 2 + i, "name": str(2 + i), "path": path, "type": f"{OLD}.Dense"})
            found[name][f"{path}/config.json"] = {
                "in_features": inputs,
                "out_features": width,
                "bias": bias,
                "activation_function": f"torch.nn.modules.{activation}",
            }
            inputs = width
        found[name]["modules.json"] = listed
    found["0_Transformer"] = {
        "modules.json": [{**modules()[0], "path": "0_Transformer"}, modules()[1]],
        SETTINGS: {"max_seq_length": 6},
        POOLING: {"pooling_mode_cls_token": True, "word_embedding_dimension": 24},
        PROMPTS: {"prompts": {"x": "red "}, "default_prompt_name": "x"},
    }
    return {name: {"modules.json": modules(), **files} for name, files in found.items()}


def main() -> None:
    """Write the file."""
    found = []
    for name, files in cases().items():
        folder = sentence_folder(Path(tempfile.mkdtemp()), files)
        model = SentenceTransformer(str(folder), model_kwargs={"dtype": torch.float32})
        features = model.encode(TEXTS).astype(float).round(7).tolist()
        length = model.max_seq_length
        found.append({"name": name, "files": files, "length": length, "features": features})
    content = {"texts": TEXTS, "cases": found}
    (HERE / "sentences.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
