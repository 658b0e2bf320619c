"""Test set-up: eight simulated devices, run-time shape checks, quiet TensorFlow."""

import os

# Before the first import of jax: tests of sharding need several devices, everything else uses one.
# The next four cut the time that XLA compiles to a quarter; tiny models run no slower for it.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 "
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
    # Eight devices on two busy cores: their threads may wait long for each other.
    "--xla_cpu_collective_call_terminate_timeout_seconds=300",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import gc
import importlib
import warnings

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

# Programs of several devices that overlap can starve each other's threads for good.
jax.config.update("jax_cpu_enable_async_dispatch", False)

# What is imported and collected stays, and looking for garbage among it takes seconds.
gc.disable()

# Before the hook: while it runs a module, Python looks for the byte code of whatever the module
# imports under a name of the hook's own, and compiles other people's packages anew.
for name in (
    *("beartype", "flax.nnx", "jinja2", "matplotlib.pyplot", "optax", "orbax.checkpoint"),
    *("sklearn.feature_extraction.text", "sklearn.linear_model", "sklearn.pipeline"),
    *("statsmodels.stats.multitest", "tensorflow", "tensorflow_datasets", "tokenizers"),
):
    importlib.import_module(name)
# The hook stays installed: every annotation of the package is checked when a function is traced.
install_import_hook("int_ra_jax", "beartype.beartype")

# What takes milliseconds takes half a second where it is compiled first, or the machine is busy.
hypothesis.settings.register_profile("explore", deadline=None)
# What must pass before a change lands is the same each time; every other run draws new examples.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "explore")

pytest_plugins = ["fixtures.browser", "fixtures.flagged", "fixtures.prepared", "fixtures.trained"]


@pytest.fixture(scope="module", autouse=True)
def _programs_dropped():
    """Frees a module's compiled programs: a process may map 65,530 pieces of memory, no more.

    The whole suite compiles more than that, and XLA then crashes.
    """
    yield
    jax.clear_caches()
    leave_out_of_collections()


def pytest_collection_finish():
    """Leaves what was imported out of every garbage collection: millions of objects."""
    leave_out_of_collections()
    gc.enable()


def leave_out_of_collections() -> None:
    """Frees what nothing holds, and leaves all else out of later garbage collections.

    NiceGUI and statsmodels collect several times in one test, each time through whatever the
    modules before have imported and made.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what was left open, not by the test that is blamed
        gc.collect()
    gc.freeze()
