"""The one place where bytes become the floats that a vision tower reads."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, UInt8

from int_ra_jax.common.model_directory import read_json

Channels = tuple[float, float, float]
"""One number for each of red, green and blue."""
# Mean and standard deviation of the channels in CLIP's training images, in units of [0, 1].
CLIP_MEAN: Channels = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Channels = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = 3  # PIL's number


def normalise(
    pixels: UInt8[np.ndarray, "*N S S 3"] | UInt8[jax.Array, "*N S S 3"],
    mean: Channels = CLIP_MEAN,
    std: Channels = CLIP_STD,
) -> Float32[np.ndarray, "*N S S 3"] | Float32[jax.Array, "*N S S 3"]:
    """Scales pixels as the tower saw them in training.

    Works on numpy and JAX arrays alike; pixels stay bytes until the device, a quarter of the size.

    Args:
      pixels: [..., S, S, 3] RGB, 0 to 255.
      mean: of the channels, in units of [0, 1]; ``ClipVisionConfig.image_mean`` of the tower.
      std: their standard deviation, likewise ``image_std``.

    Returns:
      Channels of about zero mean and unit deviation.
    """
    scaled = pixels.astype(np.float32) / np.float32(255)
    return (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def read_normalisation(
    directory: Path, problems: list[str], default: Mapping[str, Any]
) -> tuple[Channels, Channels]:
    """Returns mean and standard deviation from a model's own image preprocessing.

    Read from ``preprocessor_config.json``, or from the part of ``processor_config.json`` that is
    about images. Of the rest of that file only what contradicts this library is looked at: sizes
    and cropping are the run's own choice, and resizing is bicubic.

    Args:
      directory: a local model directory.
      problems: receives one line for everything that is wrong with those files.
      default: what to read where there is no such file; CLIP's constants where it is silent, too.

    Returns:
      Mean and deviation for ``normalise``; any other scaling of the pixels is folded into them.
    """
    name, description = "config.json", default
    if (directory / "preprocessor_config.json").exists():
        name = "preprocessor_config.json"
        description = read_json(directory / name, problems)
    elif (directory / "processor_config.json").exists():
        name = "processor_config.json"
        description = read_json(directory / name, problems).get("image_processor") or {}
    if not isinstance(description, Mapping):
        problems.append(f"{name}: image_processor is no object")
        description = {}
    noted = len(problems)
    if description.get("resample", _BICUBIC) != _BICUBIC:
        problems.append(
            f"{name}: resample {description['resample']!r}: stickers are resized bicubically "
            f"({_BICUBIC}) only"
        )
    for switch in ("do_rescale", "do_normalize"):
        if not isinstance(description.get(switch, True), bool):
            problems.append(f"{name}: {switch} {description[switch]!r} is neither true nor false")
    mean = _channels(description, "image_mean", CLIP_MEAN, name, problems)
    std = _channels(description, "image_std", CLIP_STD, name, problems)
    if min(std) <= 0:
        problems.append(f"{name}: image_std {list(std)} must be above 0")
    factor = description.get("rescale_factor", 1 / 255)
    if not _is_number(factor) or factor <= 0:
        problems.append(f"{name}: rescale_factor {factor!r} must be a number above 0")
    if len(problems) > noted:
        return CLIP_MEAN, CLIP_STD
    if not description.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    scale = 255 * factor if description.get("do_rescale", True) else 255.0
    if math.isclose(scale, 1.0, rel_tol=1e-6):
        return mean, std
    red, green, blue = ((m / scale, s / scale) for m, s in zip(mean, std, strict=True))
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])


def _channels(
    description: Mapping[str, Any], key: str, default: Channels, name: str, problems: list[str]
) -> Channels:
    value = description.get(key, default)
    if isinstance(value, (list, tuple)) and len(value) == 3 and all(map(_is_number, value)):
        return (float(value[0]), float(value[1]), float(value[2]))
    problems.append(f"{name}: {key} {value!r} is not three numbers, one for each colour")
    return default


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
