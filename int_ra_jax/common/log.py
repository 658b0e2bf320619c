"""What a run says: metrics on disk, progress on the console.

``metrics.jsonl`` is the record, one flat object per line; TensorBoard files beside it are a mirror,
and the report draws its curves from the record. Metric names are ``split/area/name``, for example
``train/loss/total`` and ``valid/retrieval/mAP``. Only the first host writes.
"""

import importlib.metadata
import json
import logging as python_logging
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, SupportsFloat

import jax
from absl import logging
from jax.sharding import Mesh
from tqdm import tqdm

from int_ra_jax.common.files import replace_text

METRICS_FILE = "metrics.jsonl"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


def set_up_console(process: int = 0) -> None:
    """Makes the console readable: time and message, and of Orbax only its warnings.

    Args:
      process: index of this process; the others than the first say warnings only, with their index.
    """
    handler = logging.get_absl_handler()
    who = f"process {process}: " if process else ""
    handler.setFormatter(python_logging.Formatter(f"%(asctime)s {who}%(message)s", "%H:%M:%S"))
    # What Orbax logs as errors, a page of traceback each, Checkpoints raises in one line.
    handler.addFilter(
        lambda record: record.levelno == python_logging.WARNING or "orbax" not in record.pathname
    )
    logging.set_verbosity(logging.WARNING if process else logging.INFO)
    # JAX reports each kind of accelerator that is not there.
    python_logging.getLogger("jax").setLevel(python_logging.WARNING)


class MetricLog:
    """Writes the metrics of one training run and prints its progress.

    After a restart the lines beyond the checkpoint are dropped, so that the steps done twice
    appear once in the curves.
    """

    def __init__(
        self,
        workdir: str | Path,
        total_steps: int,
        *,
        batch_size: int,
        resume_step: int | None = None,
        tensorboard: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens the log of a run.

        Args:
          workdir: directory of the run; created if it does not exist.
          total_steps: updates of the whole run, for percentages and the time left.
          batch_size: conversations per step over all devices, for the speed.
          resume_step: step of the checkpoint that training continues from; lines up to it stay.
            None starts the record anew.
          tensorboard: whether to mirror the metrics to ``workdir/tensorboard``.
          clock: seconds; replaced in tests.
        """
        self._total_steps = total_steps
        self._batch_size = batch_size
        self._clock = clock
        self._first_step = self._last_step = resume_step or 0
        self._started = self._last_time = clock()
        self._waited = 0.0
        self._writes = jax.process_index() == 0
        self._events = None
        if not self._writes:
            return
        path = Path(workdir) / METRICS_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_lines_after(path, resume_step)
        self._file = path.open("a", encoding="utf-8")
        if tensorboard:
            # Not tensorboard's own writer: that one imports tensorflow.
            from tensorboardX import SummaryWriter

            # Hides the events of steps that are done again.
            purge = None if resume_step is None else resume_step + 1
            self._events = SummaryWriter(str(path.parent / "tensorboard"), purge_step=purge)

    def write(
        self, step: int, metrics: Mapping[str, SupportsFloat], *, show: Sequence[str] = ()
    ) -> None:
        """Records metrics and prints one progress line.

        Adds ``perf/examples_per_sec`` and ``perf/input_wait_share``, the share of the time that
        was spent in ``waiting``, if steps were done since the last call. Reading a value waits for
        the device: call it every so many steps, not in each.

        Args:
          step: updates done.
          metrics: name -> scalar; a value that is not finite is recorded as null.
          show: names of the metrics that the console line gives.

        Raises:
          ValueError: if a name is not of the form split/area/name.
        """
        if not self._writes:
            return
        wrong = [name for name in metrics if name.count("/") < 1]
        if wrong:
            raise ValueError(
                f"metric names {', '.join(wrong)}: use split/area/name, as in train/loss/total."
            )
        values = {name: float(value) for name, value in metrics.items()}
        line = [f"step {step}/{self._total_steps} {_percent(step, self._total_steps)}"]
        line += [f"{_label(name)} {values[name]:.4g}" for name in show]
        now = self._clock()
        if step > self._last_step and now > self._last_time:
            speed = (step - self._last_step) * self._batch_size / (now - self._last_time)
            values["perf/examples_per_sec"] = speed
            values["perf/input_wait_share"] = self._waited / (now - self._last_time)
            line.append(f"{speed:.4g} ex/s")
        if step > self._first_step:
            done = step - self._first_step
            left = (now - self._started) / done * (self._total_steps - step)
            line.append(f"ETA {_duration(left)}")
        self._since(step, now)
        self._record(step, values)
        logging.info("%s", " | ".join(line))

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """Keeps what is done inside, such as validation, out of the examples per second."""
        before = self._clock()
        yield
        self._last_time += self._clock() - before

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts what is done inside as waiting for the next batch."""
        before = self._clock()
        yield
        self._waited += self._clock() - before

    def first_step(self, step: int, seconds: float) -> None:
        """Records the time from the start of the run to the end of its first step.

        It is mostly compilation, and is kept out of the examples per second.
        """
        if not self._writes:
            return
        self._since(step, self._clock())
        self._record(step, {"perf/first_step_sec": seconds})
        logging.info("first step done %.1f s after the start", seconds)

    def close(self) -> None:
        """Writes what is pending."""
        if self._writes:
            self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _since(self, step: int, now: float) -> None:
        self._last_step, self._last_time, self._waited = step, now, 0.0

    def _record(self, step: int, values: Mapping[str, float]) -> None:
        wall_time = time.time()
        # NaN and Infinity are not JSON.
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        entry = {"step": step, "wall_time": round(wall_time, 3), **finite}
        self._file.write(json.dumps(entry, allow_nan=False) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                # TensorBoard takes no "@" in a name.
                self._events.add_scalar(
                    name.replace("@", "_at_"), value, global_step=step, walltime=wall_time
                )


def progress(name: str, total: int, unit: str) -> "tqdm[Any]":
    """Returns a bar on the console of the first process; ``update(count)`` moves it.

    Args:
      name: what is being done.
      total: how many units there are.
      unit: what is counted, in the plural.
    """
    others = jax.process_index() > 0
    return tqdm(desc=name, total=total, unit=f" {unit}", mininterval=5.0, disable=others)


class Phases:
    """Wall time of a run by phase, kept in ``WORKDIR/phases.json`` over restarts.

    ``with phases("training"): ...`` adds to what earlier processes spent in that phase.

    Attributes:
      seconds: phase -> wall time.
    """

    def __init__(self, workdir: str | Path) -> None:
        """Reads what is on record; a run without a record starts at zero."""
        self._path = Path(workdir) / "phases.json"
        self.seconds: dict[str, float] = {}
        if self._path.is_file():
            self.seconds = json.loads(self._path.read_text(encoding="utf-8"))

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times what is done inside and puts it on record, also where it fails."""
        start = time.monotonic()
        try:
            yield
        finally:
            spent = self.seconds.get(name, 0.0) + time.monotonic() - start
            self.seconds[name] = round(spent, 2)
            if jax.process_index() == 0:
                try:
                    replace_text(self._path, json.dumps(self.seconds, indent=2) + "\n")
                except OSError as error:  # must not hide what stopped the run
                    logging.warning("wall times are not on record: %s", error)


def read_metrics(path: str | Path) -> dict[str, tuple[list[int], list[float]]]:
    """Returns the curves of a run.

    Args:
      path: a ``metrics.jsonl``; a half-written last line is passed over.

    Returns:
      Metric name -> (steps, values) in the order of the record; NaN where a value was not finite.

    Raises:
      ValueError: if another line than the last is damaged.
    """
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for entry in _read_lines(Path(path)):
        for name, value in entry.items():
            if name not in ("step", "wall_time"):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(entry["step"])
                values.append(math.nan if value is None else value)
    return curves


def versions() -> dict[str, str]:
    """Returns name -> version of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def log_start(
    *,
    mesh: Mesh,
    batch_size: int,
    total_steps: int,
    parameters: Mapping[str, tuple[int, int]],
    notes: Mapping[str, Any],
) -> None:
    """Logs once what a run is made of.

    Args:
      mesh: devices that take part.
      batch_size: conversations per step over all devices.
      total_steps: updates of the whole run.
      parameters: role -> (number of parameters, how many of them train).
      notes: what else should be on record, such as where the parameters came from.
    """
    if jax.process_index():
        return
    hosts = jax.process_count()
    device = mesh.devices.flat[0]
    shape = " x ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    logging.info("versions: %s", ", ".join(f"{name} {v}" for name, v in versions().items()))
    logging.info(
        "devices: %d x %s on %d host(s), mesh %s", mesh.size, device.device_kind, hosts, shape
    )
    logging.info(
        "batch: %d conversations a step, %d on each host; %d steps",
        batch_size,
        batch_size // hosts,
        total_steps,
    )
    for role, (total, trainable) in parameters.items():
        logging.info("parameters: %s %s, %s of them train", role, f"{total:,}", f"{trainable:,}")
    for name, value in notes.items():
        logging.info("%s: %s", name, value)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    entries = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError as error:
            # A run that was killed while writing leaves half a line at the end.
            if number < len(lines):
                raise ValueError(
                    f"{path}:{number} is not JSON ({error.msg}). Delete this line."
                ) from error
    return entries


def _drop_lines_after(path: Path, step: int | None) -> None:
    if not path.exists():
        return
    kept = [] if step is None else [e for e in _read_lines(path) if e["step"] <= step]
    # As a whole, so that a second kill cannot lose the record.
    replace_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))


def _label(name: str) -> str:
    parts = name.split("/")
    return parts[-2] if parts[-1] == "total" else parts[-1]


def _percent(done: int, total: int) -> str:
    return f"{100 * done // total}%" if total else "100%"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
