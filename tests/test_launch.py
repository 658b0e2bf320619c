"""What a person types: each mistake is one message that names the way out, before any work."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from absl import flags
from absl.testing import flagsaver
from fixtures.trained import read_jsonl, tiny_config

import launch
from configs import int_ra
from int_ra_jax.common import config as configuration
from int_ra_jax.training.loop import NotFiniteError

ROOT = Path(__file__).resolve().parent.parent
SMOKE = "--config=configs/int_ra.py:smoke"


def command(*arguments):
    return [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)]


@pytest.fixture
def launched(monkeypatch, capsys):
    """Runs a command line in this process, whose imports are done, and leaves no flag behind.

    Returns the exit status, and what was printed and complained of.
    """

    def launch_here(*arguments):
        monkeypatch.chdir(ROOT)
        line = ["launch.py", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", line)  # ml_collections looks there for config keys
        # What a process does to itself.
        monkeypatch.setattr("int_ra_jax.common.log.set_up_console", lambda: None)
        monkeypatch.setattr("int_ra_jax.common.memory.keep_freed", lambda: None)
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
            launch._guarded(launch._parse(line))
        flags.FLAGS.unparse_flags()
        shown = capsys.readouterr()
        return ended.value.code, shown.out, shown.err

    return launch_here


# ml_collections loads a config by it.
LOADED = "ignore:the load_module:DeprecationWarning"


# What is wrong is found by the parser of flags, of the config file, or by the mode itself.
@pytest.mark.filterwarnings(LOADED)
@pytest.mark.parametrize(
    "arguments",
    [
        ["--mode=train", SMOKE, "--config.optm.lr=1"],
        ["--mode=train", "--config=configs/int_rra.py"],
        ["--mode=gallery", "--gallery=x", "lst"],
        ["--mode=train", SMOKE, "--config.loss.retrieval=hing"],
    ],
)
def test_a_process_of_its_own_says_what_a_command_line_says_here(arguments, launched, tmp_path):
    line = [*arguments, f"--workdir={tmp_path / 'run'}"]
    process = subprocess.run(command(*line), cwd=ROOT, capture_output=True, text=True)
    assert launched(*line) == (process.returncode, process.stdout, process.stderr)
    assert process.returncode == 2


@pytest.mark.filterwarnings(LOADED)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode=train", SMOKE, "--config.optm.lr=1"], 'Did you mean "optim" instead of "optm"?'),
        (["--mode=train", SMOKE, "--config.optim.lrr=1"], 'Did you mean "lr" instead of "lrr"?'),
        (["--mode=train", SMOKE, "--config.optim.lr=fast"], "could not convert string to float"),
        (["--mode=train", SMOKE, "--config.train.cache_frozen=x"], "Non-boolean argument"),
        (["--mode=train", "--config=configs/int_ra.py:smoky"], "Did you mean 'smoke'?"),
        (["--mode=train", "--config=configs/int_rra.py"], "Did you mean configs/int_ra.py?"),
        (
            ["--mode=train", "--config=configs/int_rra.py:demo", "--config.optim.lr=1"],
            "Did you mean configs/int_ra.py?",
        ),
        (
            ["--mode=tain", SMOKE],
            "one of <train|eval|search|table|serve|mcp|export|annotate|stats|gallery>",
        ),
        (["--mode=annotate", "--port=0"], "0 is not an integer in the range [1, 65535]"),
        (["--mode=serve", "--host=0.0.0.0"], "opens the service to whoever reaches this machine"),
        (["--mode=serve", "--key_file=none"], "--key_file=none: no such file. Write one"),
        (["--mode=search", "--top_k=0"], "0 is not a positive integer"),
        (["--mode=eval", "--workdr=x"], "Did you mean: workdir"),
    ],
)
def test_a_mistyped_flag_is_one_line_with_the_nearest_choice(
    arguments, message, launched, tmp_path
):
    code, printed, complaint = launched(*arguments, f"--workdir={tmp_path / 'run'}")
    assert code == 2
    assert len(complaint.splitlines()) == 1
    assert complaint.startswith("launch.py: ")
    assert message in complaint
    assert printed == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings(LOADED)
@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--mode=train"], ["--mode=train needs --config=configs/int_ra.py:PRESET"]),
        (["--mode=table"], ["--mode=table needs --config=configs/table.py:PRESET"]),
        (
            ["--mode=table", SMOKE],
            ["lacks also_tested, main", "--mode=table reads --config=configs/table.py"],
        ),
        (
            ["--mode=table", "--config=configs/table.py:smoke", "--config.main=int_rra"],
            ["main='int_rra' is no system; did you mean 'int_ra'?", "prepared_dir is empty"],
        ),
        (["--mode=search"], ["--mode=search needs --conversation=FILE.json"]),
        (["--mode=export"], ["--mode=export needs --to=DIR"]),
        (["--mode=serve", "--to=x"], ["--to is read by --mode=export alone"]),
        (
            ["--mode=eval", SMOKE, "--top_k=3", "--port=9"],
            [
                "--config is read by --mode=train and --mode=table alone",
                "--top_k is read by --mode=search alone",
                "--port is read by --mode=annotate and --mode=serve alone",
            ],
        ),
        (["--mode=eval"], ["no run was started there. Did you mean", "trained?"]),
        (["--mode=gallery", "list"], ["--mode=gallery needs --gallery=DIR"]),
        (["--mode=gallery", "--gallery=x", "lst"], ["add, list, hide", "Did you mean list?"]),
        (["--mode=gallery", "--gallery=x"], ["takes one of add, list, hide, show, remove"]),
        (["--mode=gallery", "--gallery=x", "add"], ["add needs a PACK"]),
        (["--mode=gallery", "--gallery=x", "hide"], ["hide needs an id or a pack"]),
        (["--mode=gallery", "--gallery=x", "add", "no"], ["there is no no; nothing was added"]),
        (["--mode=annotate"], ["--mode=annotate needs --prepared_dir=DIR"]),
        (["--mode=stats"], ["--mode=stats needs --prepared_dir=DIR"]),
        (["--mode=stats", "--prepared_dir=nowhere"], ["no directory nowhere"]),
        (["--mode=annotate", "--prepared_dir=nowhere"], ["file is missing in nowhere"]),
        (["--mode=eval", "more"], ["unexpected arguments ['more']"]),
        (
            ["--mode=train", SMOKE, "--num_processes=2"],
            ["--coordinator_address and --process_id missing: several processes need all three"],
        ),
        (
            ["--mode=table", "--config=configs/table.py:smoke", "--distributed"],
            ["leave out the flags of processes"],
        ),
        (
            ["--mode=train", SMOKE, "--config.loss.retrieval=hing", "--config.model.heads=3"],
            ["did you mean 'hinge'?", "model.joint_width=32 is not divisible by model.heads=3"],
        ),
    ],
)
def test_what_cannot_be_meant_is_said_without_a_traceback(arguments, messages, launched, tmp_path):
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "config.json").write_text("{}")
    code, _, complaint = launched(*arguments, f"--workdir={tmp_path / 'traned'}")
    assert code == 2
    assert complaint.startswith("launch.py: ")
    assert "Traceback" not in complaint
    for message in messages:
        assert message in complaint
    assert not (tmp_path / "traned").exists()


def test_a_process_that_no_cluster_knows_of_says_how_to_name_the_others(tmp_path):
    # JAX looks for a cluster before anything is computed, so in a process of its own alone.
    line = command("--mode=train", SMOKE, "--distributed", f"--workdir={tmp_path / 'run'}")
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Name them with --coordinator_address=" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "error",
    [
        NotFiniteError("loss or gradient was not finite at step 7."),
        ValueError("checkpoint fingerprint mismatch"),
        FileNotFoundError("no prepared directory at x"),
    ],
)
def test_an_error_that_a_user_can_act_on_ends_the_process_with_its_message(
    error, monkeypatch, capsys
):
    monkeypatch.setattr(launch, "main", lambda argv: (_ for _ in ()).throw(error))
    monkeypatch.setattr(launch, "_TRACEBACK", SimpleNamespace(value=False))
    monkeypatch.setattr("int_ra_jax.common.log.set_up_console", lambda: None)
    with pytest.raises(SystemExit) as ended:
        launch._guarded(["launch.py"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"launch.py: {error}\n"
    monkeypatch.setattr(launch, "_TRACEBACK", SimpleNamespace(value=True))
    with pytest.raises(type(error)):
        launch._guarded(["launch.py"])


def test_search_prints_json_that_can_be_read(evaluated, tmp_path, monkeypatch, capsys):
    chat = {"turns": [{"speaker": "Ann", "text": "we won the match today"}], "reply_speaker": "Ben"}
    path = tmp_path / "chat.json"
    path.write_text(json.dumps(chat))
    asked = {"_CONVERSATION": str(path), "_TOP_K": 3, "_JSON": True}
    for name, value in asked.items():
        monkeypatch.setattr(launch, name, SimpleNamespace(value=value))
    monkeypatch.setattr(launch.modes, "GALLERY", SimpleNamespace(value=None))
    launch._search(evaluated.workdir)
    found = json.loads(capsys.readouterr().out)
    assert [sticker["rank"] for sticker in found["stickers"]] == [1, 2, 3]
    assert found["intention"] == next(iter(found["intention_probabilities"]))

    monkeypatch.setattr(launch, "_JSON", SimpleNamespace(value=False))
    launch._search(evaluated.workdir)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"intention: {found['intention']} ")
    assert [line.split()[2] for line in lines[1:]] == [s["sticker"] for s in found["stickers"]]


def test_a_search_makes_no_gallery(evaluated, tmp_path, monkeypatch):
    path = tmp_path / "chat.json"
    path.write_text(json.dumps({"turns": [{"speaker": "a", "text": "hm"}], "reply_speaker": "b"}))
    monkeypatch.setattr(launch, "_CONVERSATION", SimpleNamespace(value=str(path)))
    monkeypatch.setattr(launch.modes, "GALLERY", SimpleNamespace(value=str(tmp_path / "g")))
    with pytest.raises(FileNotFoundError, match="g holds no gallery"):
        launch._search(evaluated.workdir)
    assert not (tmp_path / "g").exists()


def test_a_launched_run_that_is_terminated_saves_and_ends_well(trained, tmp_path):
    workdir = tmp_path / "run"
    config = tiny_config(trained.prepared, train__max_steps=900, train__log_steps=1)
    usual, wanted = (configuration.flatten(c) for c in (int_ra.get_config("smoke"), config))
    changes = [f"--config.{key}={wanted[key]}" for key in usual if usual[key] != wanted[key]]
    # What the tests have compiled, the process need not compile again.
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    process = subprocess.Popen(
        command("--mode=train", SMOKE, f"--workdir={workdir}", *changes),
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | cache,
    )  # fmt: skip
    try:
        metrics, limit = workdir / "metrics.jsonl", time.monotonic() + 120
        while not (metrics.is_file() and metrics.stat().st_size):
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, shown = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    last = read_jsonl(metrics)[-1]["step"]
    assert last < 900
    assert (workdir / "checkpoints" / str(last)).is_dir()
    assert f"stopped by a signal after step {last}" in shown


def test_eval_looks_first_whether_it_can_write(tmp_path, monkeypatch):
    configuration.save(tiny_config("somewhere"), tmp_path / "config.json")
    (tmp_path / "eval").write_text("no directory")

    def opened(_):
        raise AssertionError("the run was opened although nothing can be written")

    monkeypatch.setattr("int_ra_jax.run.workdir.open_run", opened)
    with pytest.raises(OSError, match="eval cannot be written"):
        launch._eval(tmp_path)
