"""Where in-process models run, and in which precision."""

from pathlib import Path
from typing import Any

from data_prep.extraction.store import MODEL_FILES
from int_ra_jax.common import model_directory as sources

MISSING = "{name} is not installed; it comes with `pip install 'int-ra-jax[extract]'`"


def model_directory(path_or_name: str) -> Path:
    """Returns the directory of a checkpoint, from the hub if it is a name.

    Raises:
      FileNotFoundError: if there is none, with the nearest directory there is.
    """
    return sources.resolve_directory(path_or_name, patterns=MODEL_FILES)


def torch_device(wanted: str) -> Any:
    """Returns a torch device: the accelerator there is, or the CPU.

    Args:
      wanted: "auto", or a device of torch such as "cuda:1" or "cpu".

    Raises:
      ImportError: if torch is not installed.
      ValueError: if torch does not know the device.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(MISSING.format(name="torch")) from error
    if wanted != "auto":
        try:
            return torch.device(wanted)
        except RuntimeError as error:
            raise ValueError(f"--device={wanted}: {error}") from error
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def torch_dtype(device: Any) -> Any:
    """Returns bfloat16 on an accelerator, where it halves memory and time, and float32 on a CPU."""
    import torch

    return torch.float32 if device.type == "cpu" else torch.bfloat16
