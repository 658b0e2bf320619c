"""What the modes that answer others refuse before they load anything heavy."""

import pytest

from data_prep import modes as data_modes
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.serving import modes


@pytest.mark.parametrize("mode", ["serve", "mcp"])
def test_packages_that_words_need_are_missed_at_once_and_with_their_extras(mode, monkeypatch):
    gone = {"lancedb", "jieba"}
    monkeypatch.setattr(modes, "find_spec", lambda name: None if name in gone else object())
    with pytest.raises(ValueError, match=rf"--mode={mode} needs lancedb, jieba: .*serve,gallery"):
        modes._need(mode)


@pytest.mark.parametrize("key", ["", "a-key-that-is-long-enough"])
def test_a_gallery_is_made_by_a_service_that_can_fill_it_alone(key, flagged, tmp_path, monkeypatch):
    asked = []

    def opened(path, workdir, *, create, read_words, describe):
        asked.append((create, read_words, describe))
        raise FileNotFoundError("no run")

    monkeypatch.setattr(Gallery, "open", opened)
    monkeypatch.setenv("INT_RA_JAX_KEY", key)
    flagged[data_modes.GALLERY.name].value = str(tmp_path / "g")
    with pytest.raises(FileNotFoundError, match="no run"):
        modes.serve(tmp_path, None, lambda: str, lambda: dict)
    with pytest.raises(FileNotFoundError, match="no run"):
        modes.mcp(tmp_path)
    assert asked == [(bool(key), str, dict), (False, None, None)]
