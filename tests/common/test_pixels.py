"""The scaling of pixels is the tower's own, read from files that nobody vouches for."""

import json

import numpy as np
import pytest

from int_ra_jax.common.pixels import CLIP_MEAN, CLIP_STD, normalise, read_normalisation

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
OWN = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}


def read(directory, description=None, name="preprocessor_config.json", default=None):
    if description is not None:
        (directory / name).write_text(json.dumps(description))
    problems = []
    values = read_normalisation(directory, problems, default or {})
    return values, problems


@pytest.mark.parity
@pytest.mark.parametrize(
    "changes",
    [
        {},
        OWN,
        {"rescale_factor": 1 / 127.5},
        OWN | {"do_rescale": False},
        {"do_normalize": False},
        {"do_normalize": False, "do_rescale": False},
        {"do_center_crop": False, "size": {"height": 5, "width": 5}},
    ],
)
def test_scaling_equals_the_processor_that_the_file_describes(changes, tmp_path):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    square = {"height": 5, "width": 5}
    reference = CLIPImageProcessorPil(**{"size": square, "crop_size": square} | changes)
    reference.save_pretrained(tmp_path)
    (mean, std), problems = read(tmp_path)
    assert not problems
    wanted = reference(list(PIXELS), return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(normalise(PIXELS, mean, std), wanted, rtol=1e-5, atol=2e-6)


def test_clips_constants_stand_where_no_file_says_otherwise(tmp_path):
    assert read(tmp_path) == ((CLIP_MEAN, CLIP_STD), [])
    assert read(tmp_path, {"do_resize": True}) == ((CLIP_MEAN, CLIP_STD), [])


def test_the_first_of_the_files_that_exists_is_read(tmp_path):
    wanted = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert read(tmp_path, default=OWN)[0] == wanted
    joint = {"image_processor": OWN | {"image_mean": [0.7, 0.7, 0.7]}}
    assert read(tmp_path, joint, "processor_config.json", OWN)[0][0] == (0.7, 0.7, 0.7)
    assert read(tmp_path, OWN, default={"image_mean": 1})[0] == wanted


def test_everything_wrong_is_listed(tmp_path):
    bad = {
        "image_mean": [0.1, 0.2],
        "image_std": [1, 0, float("nan")],
        "resample": 2,
        "do_rescale": "no",
        "rescale_factor": -1,
    }
    _, problems = read(tmp_path, bad)
    text = "\n".join(problems)
    for reason in ("image_mean [0.1, 0.2]", "image_std [1, 0, nan]", "resample 2", "do_rescale",
                   "rescale_factor -1"):  # fmt: skip
        assert reason in text
    assert len(problems) == 5
    assert "above 0" in read(tmp_path, {"image_std": [1, 0, 1]})[1][0]
    for broken in ([1], "x", None):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(broken))
        assert read(tmp_path)[1]
