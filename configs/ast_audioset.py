r"""AST-B/16 on AudioSet, with the blocks of a DeiT of ImageNet to start from.

    python -m mmjax.train --config=configs/ast_audioset.py --workdir=runs/ast_audioset \
        --config.data.train.data_dir=DIR --config.init_from.path=DEIT

Setting: Gong et al. 2021 (arXiv 2104.01778, section 3.1; YuanGongND/ast, egs/audioset/run.sh, full
set): 10 seconds at 16 kHz as 1,024 frames of 128 bins, patches of 16 every 10, 527 independent
classes, 5 epochs, learning rate 1e-5 for batches of 12, from the second epoch on halved in each,
SpecAugment of 192 frames and 48 bins. Here batches of 96, and the learning rate times sqrt(8).
Left out: its balanced sampling, its Mixup of half of the waveforms, and the part of its start that
needs other shapes, the patches and their positions.
Published: mAP 0.4593 of the checkpoint ast-finetuned-audioset-10-10-0.4593, with averaged weights.
DEIT is a published DeiT-B/16 with a distillation token (without init_from: from scratch). DIR holds
the prepared TFDS set 'audioset' as array_record: `audio` (encoded bytes) and `labels` (numbers of
the classes in class_labels_indices.csv), splits train and eval.
"""

from mmjax.config import defaults

CLIPS = 2_000_000
BANK = "waveform(10.26, pad=False) | kaldi_fbank(1024)"


def get_config():
    """The config of this experiment."""
    config = defaults()
    config.batch_size = 96
    epoch = CLIPS // 96
    config.total_steps = 5 * epoch
    config.log_every = 100
    config.checkpoint.every = 5000
    config.data.train = {
        "kind": "tfds",
        "name": "audioset",
        "data_dir": "data/audioset",
        "split": "train",
    }
    config.data.transform = f"{BANK} | spec_augment(0.1875, 0.375, masks=1) | multi_hot(527)"
    config.data.num_threads = 16
    config.init_from.only = ("class_.*", "distillation_.*", "transformer/.*", "norm/.*")
    config.model = {
        "name": "audio_classifier",
        "variant": "B",
        "frames": 1024,
        "bins": 128,
        "patch_size": (16, 16),
        "stride": (10, 10),
        "num_classes": 527,
        "dtype": "bfloat16",
    }
    config.loss = {"independent": True}
    config.loss_weights = {"classification": 1.0}
    config.optim = {
        "name": "adamw",
        "learning_rate": (
            (2 * epoch, 2.8e-5),
            (3 * epoch, 1.4e-5),
            (4 * epoch, 7e-6),
            (5 * epoch, 3.5e-6),
        ),
        "schedule": "constant",
        "warmup_steps": 1000,
        "weight_decay": 5e-7,
    }
    test = {"kind": "tfds", "name": "audioset", "split": "eval"}
    test["data_dir"] = config.data.train.get_ref("data_dir")
    transform = f"{BANK} | multi_hot(527)"
    config.evals.test = {"kind": "multi_label", "source": test, "transform": transform}
    return config
