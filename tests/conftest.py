"""Test set-up: eight simulated devices, run-time shape checks, quiet TensorFlow."""

import os

# Before the first import of jax: tests of sharding need several devices, everything else uses one.
# The other two halve the time that XLA compiles; tiny models run no slower for it.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 "
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from jaxtyping import install_import_hook

# The hook stays installed: every annotation of the package is checked when a function is traced.
install_import_hook("int_ra_jax", "beartype.beartype")

pytest_plugins = ["fixtures.prepared", "fixtures.trained"]
