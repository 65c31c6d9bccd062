"""Parameters read back from a run."""

from train_states import assert_identical, save, state, target

from mmjax.workdir.checkpoint import Checkpoints
from mmjax.workdir.saved import restore_params


def test_restore_params_takes_the_average_where_there_is_one(tmp_path):
    save(tmp_path / "ema", 1)
    save(tmp_path / "plain", 1, ema=False)
    for name, want in (("ema", state(1).average), ("plain", state(1, ema=False).params)):
        saves = Checkpoints(tmp_path / name)
        assert_identical(restore_params(saves, 1, target(state().params)), want)
        part = restore_params(saves, 1, {"text": target(state().params["text"])})
        assert_identical(part, {"text": want["text"]})
