"""A published Whisper is fine-tuned by LoRA on a folder of recordings, by the real command."""

import json
from pathlib import Path

import commands
import numpy as np
from digits import wav

from mmjax import pretrained

WHISPER = Path(__file__).parent / "golden" / "whisper_words"
SMALL = ["batch_size=8", "total_steps=3", "log_every=1", "checkpoint.every=3"]


def test_lora_on_a_folder_of_recordings(tmp_path):
    folder, workdir = tmp_path / "speech", tmp_path / "run"
    folder.mkdir()
    rng, rows = np.random.default_rng(0), []
    for i in range(20):
        (folder / f"{i}.wav").write_bytes(wav(rng.integers(-9999, 9999, 7000), 16000))
        rows.append({"file_name": f"{i}.wav", "transcription": "a red bus"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = [*SMALL, f"data.train.source.root={folder}", "optim.learning_rate=1e-2"]
    settings += ["lora.targets=('text/.*/attention/.*/kernel',)", "lora.rank=2"]
    done = commands.run(
        "-m",
        "mmjax.train",
        f"--config=configs/finetune_whisper.py:{WHISPER}",
        f"--workdir={workdir}",
        *(f"--config.{s}" for s in settings),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a published 'whisper':" in done.stdout
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [x["train/captioning"] for x in lines if "train/captioning" in x]
    assert len(losses) == 3 and losses[2] < losses[0]
    assert sum("eval/held_out/wer" in x for x in lines) == 2  # before and after
    before, after = pretrained.load(WHISPER).params, pretrained.load(workdir).params
    np.testing.assert_array_equal(
        before["audio"]["convolution0"]["kernel"], after["audio"]["convolution0"]["kernel"]
    )
    cross = [p["text"]["decoder"]["stack"]["cross"]["attention"] for p in (before, after)]
    assert np.abs(cross[0]["query"]["kernel"] - cross[1]["query"]["kernel"]).max() > 1e-4
