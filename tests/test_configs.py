"""Configs say what to run; reading one runs nothing."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from configs import base, int_ra
from int_ra_jax.models.registry import SYSTEMS

ROOT = Path(__file__).resolve().parent.parent


def test_the_presets_load_without_the_libraries_that_run_them():
    program = (
        "import importlib, sys\n"
        f"files = [importlib.import_module('configs.' + name) for name in {list(SYSTEMS)}]\n"
        "configs = [file.get_config(preset) for file in files for preset in file.PRESETS]\n"
        "names = {config.model.name for config in configs}\n"
        "heavy = {'jax', 'flax', 'numpy', 'tensorflow', 'torch', 'transformers', 'int_ra_jax'}\n"
        "print(sorted(names), sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{sorted(SYSTEMS)} []"


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match=r"no preset 'smoky'\. Did you mean 'smoke'\?"):
        int_ra.get_config("smoky")


def test_no_preset_is_the_papers():
    assert int_ra.get_config("").to_dict() == int_ra.get_config("paper").to_dict()


def test_the_paper_preset_has_the_papers_numbers():
    config = int_ra.get_config("paper")
    assert (config.optim.name, config.optim.lr, config.train.batch_size) == ("adam", 1e-4, 4)
    assert (config.loss.lambda_ret, config.loss.lambda_int, config.data.image_size) == (1, 1, 224)
    assert config.model.text.source == "bert-base-multilingual-cased"


PRESETS = [(name, preset) for name in SYSTEMS for preset in
           importlib.import_module(f"configs.{name}").PRESETS]  # fmt: skip


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_preset_takes_no_key_that_does_not_exist(name, preset):
    config = importlib.import_module(f"configs.{name}").get_config(preset)
    with pytest.raises(AttributeError, match='Did you mean "optim" instead of "optm"'):
        config.optm = 1
    with pytest.raises(AttributeError, match='Did you mean "lr" instead of "lrr"'):
        config.optim.lrr = 1


def test_two_configs_share_nothing():
    one, other = int_ra.get_config("smoke"), int_ra.get_config("smoke")
    one.model.text.width = 1
    assert other.model.text.width != 1
    assert base.get_config().model.text.width == base.tower().width
