import sys

import huggingface_hub
import pytest

from int_ra_jax.common.model_directory import resolve_directory


def refuse(*_, **__):
    raise OSError("no route to host")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose import fails, as one with a missing heavy dependency does."""
    root = tmp_path / "heavy_weights"
    (root / "model").mkdir(parents=True)
    (root / "__init__.py").write_text("raise ImportError('must not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return root


def test_a_package_directory_is_found_without_importing_the_package(package):
    assert resolve_directory("package:heavy_weights/model") == package / "model"
    assert resolve_directory("package:heavy_weights") == package
    assert "heavy_weights" not in sys.modules


def test_a_missing_directory_in_a_package_names_the_nearest_one(package):
    with pytest.raises(FileNotFoundError, match=r"did you mean .*model"):
        resolve_directory("package:heavy_weights/modle")


@pytest.mark.parametrize("name", ["no_such_package_here", "os.path", "json"])
def test_what_is_no_installed_package_is_refused(name):
    with pytest.raises(FileNotFoundError, match=r"not installed|no directory"):
        resolve_directory(f"package:{name}/model")


def test_an_existing_directory_is_itself(tmp_path):
    assert resolve_directory(str(tmp_path)) == tmp_path == resolve_directory(tmp_path)


def test_a_file_is_refused_and_its_directory_named(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(FileNotFoundError, match="is a file"):
        resolve_directory(str(tmp_path / "model.safetensors"))


def test_a_path_with_a_typing_error_names_its_nearest_sibling_and_never_asks_the_hub(
    tmp_path, monkeypatch
):
    (tmp_path / "models" / "bert-chinese").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("hub"))
    for path in (tmp_path / "models" / "bert-chinse", "models/bert-chinse", "./a/b/c"):
        with pytest.raises(FileNotFoundError) as caught:
            resolve_directory(path)
        assert "bert-chinese" in str(caught.value) or path == "./a/b/c"


def test_a_hub_name_is_fetched_with_the_patterns_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, allow_patterns: asked.append((name, allow_patterns)) or str(tmp_path),
    )
    assert resolve_directory("owner/name", patterns=("config.json",)) == tmp_path
    assert asked == [("owner/name", ["config.json"])]


def test_a_failing_download_gives_one_error_that_names_the_directory_alternative(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(FileNotFoundError, match=r"owner/name.*no route to host.*directory instead"):
        resolve_directory("owner/name")
