"""The file of `config.baselines`: those of the configs are read, others refused in one sentence."""

import json
from pathlib import Path

import pytest

from mmjax.evaluate import _read_baselines

ROOT = Path(__file__).parents[2]


def test_baselines_are_of_one_form(tmp_path):
    for name in ("baselines", "frozen"):
        assert _read_baselines(str(ROOT / "experiments" / "clip_emoji" / f"{name}.json"))
    assert _read_baselines("") == {}
    file = tmp_path / "b.json"
    for content, said in (
        ("{", "Expecting property name"),
        ("[]", "indices must be"),
        ("{}", "it has no 'results'"),
        ('{"results": {"chance": {"unseen": {"recall@5": "high"}}}}', "a value is no number"),
        ('{"results": {"chance": 3}}', "no attribute 'values'"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=f"b.json', which is no JSON of the form .*{said}"):
            _read_baselines(str(file))
    file.write_text(json.dumps({"results": {"chance": {"unseen": {"recall@5": 0.1}}}}))
    assert _read_baselines(str(file))["chance"]["unseen"]["recall@5"] == 0.1
    with pytest.raises(ValueError, match="which is no JSON"):
        _read_baselines(str(tmp_path))
