"""Search without naming a model or an index, and an index made by another model."""

import pytest
from tiny_index import MODEL, asked, draw

from mmjax.search import __main__ as command
from mmjax.search.index import Index, default_index, open_index


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of images; the default model is the tiny one, and the cache a folder of its own."""
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "named_or_default", lambda model: str(model or MODEL))
    for i in range(3):
        draw(tmp_path / "photos" / f"{i}.png", i)
    return tmp_path / "photos"


def test_neither_model_nor_index_is_named(photos, capsys):
    with pytest.raises(ValueError, match="There is no index in"):
        command.query(asked("a dog"))
    command.index(asked(photos))
    assert "3 different images" in capsys.readouterr().out
    command.query(asked(None, image=photos / "1.png", k=1))
    assert str(photos / "1.png") in capsys.readouterr().out
    assert open_index(None).about["model"] == str(MODEL)


def test_an_index_of_another_model_is_kept_when_a_new_one_is_made(photos, capsys, monkeypatch):
    command.index(asked(photos))
    before = Index(default_index()).vectors.copy()

    def other(self):
        return "0123456789abcdef"

    monkeypatch.setattr("mmjax.embedder.Embedder.fingerprint", property(other))
    with pytest.raises(ValueError, match="index again with --rebuild, which keeps this index"):
        command.index(asked(photos))
    capsys.readouterr()
    command.index(asked(photos, rebuild=True))
    aside = default_index().with_name("index.old1")
    assert f"the old index is kept in {aside}" in capsys.readouterr().out
    assert (Index(aside).vectors == before).all() and Index(aside).about["fingerprint"] != other(0)
    assert open_index(None).about["fingerprint"] == other(0) and open_index(None).rows == 3
    command.index(asked(photos, rebuild=True))
    assert default_index().with_name("index.old2").exists()


def test_a_folder_without_images_is_refused_before_a_model_is_built(photos, monkeypatch):
    monkeypatch.setattr(command, "named_or_default", None)
    (photos.parent / "empty").mkdir()
    with pytest.raises(ValueError, match="has no images below it"):
        command.index(asked(photos.parent / "empty"))
