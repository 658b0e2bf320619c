"""CLIP's pixel constants: the one place where bytes become the floats a vision tower reads."""

import jax
import numpy as np
from jaxtyping import Float32, UInt8

# Mean and standard deviation of the RGB channels in CLIP's training images, in units of [0, 1].
CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def normalise(
    pixels: UInt8[np.ndarray, "*N S S 3"] | UInt8[jax.Array, "*N S S 3"],
) -> Float32[np.ndarray, "*N S S 3"] | Float32[jax.Array, "*N S S 3"]:
    """Scales pixels as CLIP saw them in training.

    Works on numpy and JAX arrays alike; pixels stay bytes until the device, a quarter of the size.

    Args:
      pixels: [..., S, S, 3] RGB, 0 to 255.

    Returns:
      Channels of about zero mean and unit deviation.
    """
    return (pixels.astype(np.float32) / np.float32(255) - CLIP_MEAN) / CLIP_STD
