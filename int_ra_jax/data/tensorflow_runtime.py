"""The one place that imports tensorflow: quiet, on the CPU, without the network.

``import tensorflow`` costs seconds and half a gigabyte, and takes every GPU it sees. Modules that
need it import ``tf`` and ``tfds`` from here, inside a function where they can also serve without.
"""

import os
import warnings

# Read once, when tensorflow's library is loaded; a value set by the user stays.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

with warnings.catch_warnings():
    # Deprecations inside TensorFlow's own imports are nothing a user of this library can mend.
    warnings.simplefilter("ignore")
    import tensorflow as tf
    import tensorflow_datasets as tfds

# The accelerators belong to JAX.
tf.config.set_visible_devices([], "GPU")
tfds.disable_progress_bar()

__all__ = ["tf", "tfds"]
