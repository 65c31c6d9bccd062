"""What of a config may change when a run is resumed."""

import pytest
from ml_collections import ConfigDict

from mmjax import config as configs
from mmjax.workdir import resume_config
from mmjax.workdir.checkpoint import CheckpointError


def config(**fields):
    return ConfigDict(
        {
            "seed": 0,
            "mesh": {"data": 8},
            "log_every": 10,
            "optim": {"learning_rate": 1e-3, "b1": 0.9},
            "data": {"num_threads": 2, "transform": "decode"},
        }
        | fields
    )


def test_the_same_config_or_a_free_change_goes_through():
    saved = configs.to_json(config())
    assert list(resume_config.check_unchanged(saved, config(), ())) == []
    free = config(mesh={"data": 1}, log_every=5, data={"num_threads": 9, "transform": "decode"})
    lines = list(resume_config.check_unchanged(saved, free, ()))
    assert lines == [
        "config.data.num_threads: 2 -> 9",
        "config.log_every: 10 -> 5",
        "config.mesh.data: 8 -> 1",
    ]


def test_a_change_is_refused_unless_allowed_by_name():
    saved = configs.to_json(config())
    changed = config(seed=1, optim={"learning_rate": 2e-3, "b1": 0.8})

    def check(*allow):
        return list(resume_config.check_unchanged(saved, changed, allow))

    with pytest.raises(CheckpointError) as error:
        check()
    said = str(error.value)
    for line in ("config.seed: 0 -> 1", "config.optim.learning_rate: 0.001 -> 0.002"):
        assert line in said
    assert "--allow_change=optim.b1,optim.learning_rate,seed" in said
    with pytest.raises(CheckpointError, match="config.optim.b1: 0.9 -> 0.8; config.seed") as error:
        check("optim.learning_rate")
    assert "learning_rate" not in str(error.value)
    with pytest.raises(CheckpointError):
        check("see", "opti", "optim.b")  # no key, and no prefix of one
    assert len(check("optim", "seed")) == 3
    assert len(check("optim.b1", "optim.learning_rate", "seed")) == 3


def test_a_setting_that_came_later_goes_through_at_its_default():
    saved = configs.to_json(config())
    later = configs.defaults().lora
    assert list(resume_config.check_unchanged(saved, config(lora=later), ())) == []
    with pytest.raises(CheckpointError, match="config.lora.rank: 8 -> 3"):
        list(resume_config.check_unchanged(saved, config(lora={**later, "rank": 3}), ()))


def test_sizes_of_arrays_in_the_checkpoint_cannot_change():
    saved = configs.to_json(config(loss={"queue_size": 16}))
    changed = config(loss={"queue_size": 32})
    for allow in ((), ("loss",), ("loss.queue_size",)):
        with pytest.raises(CheckpointError, match="queue_size: 16 -> 32 cannot change on a resume"):
            list(resume_config.check_unchanged(saved, changed, allow))


def test_what_is_read_at_the_start_alone_cannot_change():
    before = config(init_from={"path": "", "language_model": "", "only": ()})
    later = config(init_from={"path": "runs/other", "language_model": "", "only": ()})
    with pytest.raises(CheckpointError, match="init_from.path: .* would change nothing"):
        list(resume_config.check_unchanged(configs.to_json(before), later, ("init_from",)))
    # That the other model is no longer named does not matter.
    assert list(resume_config.check_unchanged(configs.to_json(later), before, ("init_from",)))


@pytest.mark.parametrize("allow", ["init_from", "optim"])
def test_another_dtype_of_the_moments_is_named(allow):
    saved = configs.to_json(config())
    for name in ("bfloat16", "float32"):
        now = config(optim={"learning_rate": 1e-3, "b1": 0.9, "moment_dtype": name})
        if name == "float32":  # the default
            assert list(resume_config.check_unchanged(saved, now, (allow,))) == []
            continue
        with pytest.raises(CheckpointError, match="moment_dtype: .*'bfloat16' cannot .* dtype"):
            list(resume_config.check_unchanged(saved, now, (allow,)))


def test_a_key_that_allows_nothing_is_named():
    resume_config.check_keys(["optim", "optim.b1", "data.num_threads", "seed"], config())
    for key, near in (("optim.learning_rat", "learning_rate"), ("opti", "optim"), ("sed", "seed")):
        with pytest.raises(CheckpointError, match=f"--allow_change={key} names no .*{near}"):
            resume_config.check_keys([key], config())
