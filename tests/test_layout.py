"""The house rules of docs/architecture.md: import-linter's and ruff's, and what neither can say.

``.importlinter`` and ``.ruff.toml`` hold the rules on imports, to-do marks and ``__init__.py``. The
other checks read the source with ``ast`` and return lines of the form ``file:line: what is wrong;
the rule``. Sources that break each rule are checked too, so that no rule can be silent.
"""

import ast
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN_NAMES = {"utils.py", "util.py", "helpers.py", "misc.py", "tools.py"}
MAX_FILE, MAX_FUNCTION, MAX_LOOP, MAX_LAUNCH = 400, 60, 120, 150
LOOP = "int_ra_jax/training/loop.py"
MACHINE_PATHS = re.compile(r"""["'\s(=]/(?:work|home|root|mnt|Users)/|\.\./shared""")
TEXT_FILES = {".py", ".cfg", ".toml", ".md", ".txt", ".yml", ".yaml", ".jinja", ".css", ".js"}


@dataclass(frozen=True)
class Source:
    """One file: its path from the root, its text, and its syntax tree if it is Python."""

    path: str
    text: str

    @property
    def tree(self):
        return ast.parse(self.text, self.path)

    @property
    def module(self):
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def tracked_files():
    """Returns the project's files as git sees them, new ones included."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        # An unpacked archive has no git; hidden folders and virtual environments are not ours.
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
        return [name for name in names if not re.match(r"\.|build/|venv", name)]
    return [name for name in listing.stdout.splitlines() if (ROOT / name).is_file()]


def read_sources(suffixes):
    names = [name for name in tracked_files() if Path(name).suffix in suffixes]
    return [Source(name, (ROOT / name).read_text(encoding="utf-8")) for name in sorted(names)]


@pytest.fixture(scope="module")
def sources():
    """Returns every Python file outside the tests."""
    return [s for s in read_sources({".py"}) if not s.path.startswith("tests/")]


def beyond_the_standard_library(sources):
    """Checks the configs, which whoever compares them reads: they import next to nothing."""
    allowed = {"ml_collections", "configs", *sys.stdlib_module_names}
    problems = []
    for source in sources:
        for node in ast.walk(source.tree) if source.path.startswith("configs/") else ():
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module] if isinstance(node, ast.ImportFrom) else []
            problems += [
                f"{source.path}:{node.lineno}: imports {name}; configs import ml_collections and "
                "the standard library only"
                for name in names
                if name.split(".")[0] not in allowed
            ]
    return problems


def length(node):
    """Returns the lines of a function without its docstring, which nobody should save on."""
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        lines -= node.body[0].end_lineno - node.body[0].lineno + 1
    return lines


def too_long(sources):
    problems = []
    for source in sources:
        lines = len(source.text.splitlines())
        limit = MAX_LAUNCH if source.path == "launch.py" else MAX_FILE
        if lines > limit:
            problems.append(f"{source.path}:{lines}: {lines} lines; at most {limit} in this file")
        limit = MAX_LOOP if source.path == LOOP else MAX_FUNCTION
        if source.path.startswith("configs/"):
            continue  # a get_config is one table of keys
        for node in ast.walk(source.tree):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and (lines := length(node)) > limit:
                problems.append(
                    f"{source.path}:{node.lineno}: {node.name} has {lines} lines; at most {limit} "
                    "without the docstring"
                )
    return problems


def forbidden_files(names):
    return [
        f"{name}:1: forbidden file name; name a file after what it holds"
        for name in names
        if Path(name).name in FORBIDDEN_NAMES
    ]


def lines_matching(sources, pattern, rule):
    return [
        f"{source.path}:{number}: {line.strip()[:80]}; {rule}"
        for source in sources
        for number, line in enumerate(source.text.splitlines(), 1)
        if re.search(pattern, line)
    ]


def report(problems):
    assert not problems, "\n" + "\n".join(problems)


def tool(name, *arguments, cwd=ROOT):
    """Runs a tool that stands beside Python, and returns its exit status and what it printed."""
    found = Path(sys.executable).parent / name
    run = subprocess.run([found, *arguments], cwd=cwd, capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr


def test_imports_keep_to_the_walls_of_the_house():
    code, printed = tool("lint-imports", "--no-logo", "--no-cache")
    assert code == 0, printed


def test_the_linter_finds_nothing():
    code, printed = tool("ruff", "check", ".")
    assert code == 0, printed


def test_configs_import_next_to_nothing(sources):
    report(beyond_the_standard_library(sources))


def test_files_and_functions_are_short(sources):
    report(too_long(sources))


def test_no_file_is_named_after_nothing():
    report(forbidden_files(tracked_files()))


def test_no_file_knows_the_machine_it_was_written_on():
    files = [s for s in read_sources(TEXT_FILES) if not s.path.startswith("tests/")]
    report(lines_matching(files, MACHINE_PATHS, "no path of one machine"))


@pytest.mark.parametrize(
    "prefix",
    [
        "int_ra_jax.models",
        "int_ra_jax.training.step",
        "int_ra_jax.evaluation.metrics",
        "benchmarks",
    ],
)
def test_what_runs_on_a_bare_accelerator_machine_does_not_load_tensorflow(prefix, sources):
    modules = [s.module for s in sources if f"{s.module}.".startswith(f"{prefix}.")]
    assert modules, f"no module matches {prefix}; this rule is out of date"
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    loaded = {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)\n"
        "    assert not loaded, f'{name} loads {loaded}'\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, *modules], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]


# By file: what it imports; then what lint-imports must say of it.
BROKEN_IMPORTS = {
    "int_ra_jax/common/a.py": "from int_ra_jax.models import b\nimport configs.e",
    "int_ra_jax/models/b.py": "def f():\n    import int_ra_jax.data.images",
    "int_ra_jax/training/c.py": "from int_ra_jax.retrieval import f\n"
    "from int_ra_jax.evaluation import judge, report",
    "int_ra_jax/evaluation/report.py": "import torch\nimport tensorflow\nimport orbax.checkpoint",
    "int_ra_jax/data/h.py": "from int_ra_jax.data.i import x",
    "int_ra_jax/data/i.py": "import int_ra_jax.data.h",
    "int_ra_jax/extra/m.py": "",
    "data_prep/d.py": "from int_ra_jax.data import text\nimport benchmarks.o",
    # Nothing is wrong with these: the modules, and the imports that a contract excepts.
    "int_ra_jax/evaluation/judge.py": "",
    "int_ra_jax/retrieval/f.py": "",
    "int_ra_jax/retrieval/gallery.py": "",
    "int_ra_jax/retrieval/stickers.py": "",
    "data_prep/open_gallery.py": "from int_ra_jax.retrieval import gallery, stickers",
    "int_ra_jax/data/text.py": "import tensorflow\nimport tensorflow_datasets",
    "int_ra_jax/data/copies.py": "",
    "int_ra_jax/data/grounds.py": "",
    "int_ra_jax/data/images.py": "",
    "int_ra_jax/data/schema.py": "",
    "int_ra_jax/data/validation.py": "",
    "int_ra_jax/run/checkpoint.py": "import orbax.checkpoint",
    "int_ra_jax/comparison/n.py": "",
    "int_ra_jax/serving/p.py": "",
    "data_prep/g.py": "import int_ra_jax.common.a\n"
    "from int_ra_jax.data import copies, grounds, images, schema, validation",
    "configs/e.py": "",
    "benchmarks/o.py": "import int_ra_jax.comparison.n",
}
FOUND_IMPORTS = (
    "int_ra_jax.common.a -> int_ra_jax.models.b (l.1)",
    "int_ra_jax.common.a -> configs.e (l.2)",
    "int_ra_jax.models.b -> int_ra_jax.data.images (l.2)",
    "int_ra_jax.training.c -> int_ra_jax.retrieval.f (l.1)",
    "int_ra_jax.training.c -> int_ra_jax.evaluation.report (l.2)",
    "int_ra_jax.evaluation.report -> torch (l.1)",
    "int_ra_jax.evaluation.report -> tensorflow (l.2)",
    "int_ra_jax.evaluation.report -> orbax (l.3)",
    "No cycles are allowed in int_ra_jax.data",
    "- int_ra_jax.extra",
    "data_prep.d -> int_ra_jax.data.text (l.1)",
    "data_prep.d -> benchmarks.o (l.2)",
    "Contracts: 0 kept, 8 broken",
)


def test_each_contract_on_imports_is_broken_by_what_it_forbids(tmp_path):
    for name, text in BROKEN_IMPORTS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for package in path.parents[: len(Path(name).parts) - 1]:
            (package / "__init__.py").touch()
    shutil.copy(ROOT / ".importlinter", tmp_path)
    code, printed = tool("lint-imports", "--no-logo", "--no-cache", cwd=tmp_path)
    assert code == 1, printed
    assert not [line for line in FOUND_IMPORTS if line not in printed], printed
    assert "-> int_ra_jax.evaluation.judge" not in printed


def test_the_linter_refuses_what_the_house_forbids(tmp_path):
    text = '"""Text."""\nfrom __future__ import annotations\nimport launch, benchmarks.x\n'
    # Written in two parts, so that the mark is not found here.
    (tmp_path / "__init__.py").write_text(f"{text}from . import y\n# TO" + "DO: more\n")
    config = f"--config={ROOT / '.ruff.toml'}"
    _, printed = tool("ruff", "check", config, "--output-format=concise", ".", cwd=tmp_path)
    assert len(re.findall("is banned", printed)) == 3, printed
    for rule in ("relative-imports", "line-contains-todo", "non-empty-init-module"):
        assert rule in printed


BROKEN = {
    "configs/e.py": "import jax\nfrom configs import base\nfrom int_ra_jax.common import types",
    "int_ra_jax/data/j.py": "def long():\n" + "    x = 1\n" * 60,
    "int_ra_jax/data/k.py": 'def documented():\n    """'
    + "x\n" * 60
    + '"""\n'
    + "    x = 1\n" * 59,
    "int_ra_jax/data/l.py": "x = 1\n" * 401,
    LOOP: "def train():\n" + "    x = 1\n" * 119,
    "launch.py": "x = 1\n" * 151,
}


def found(problems):
    """Returns file:line of each problem."""
    return {problem.split(": ")[0] for problem in problems}


def test_each_other_check_finds_what_breaks_its_rule():
    broken = [Source(path, text) for path, text in BROKEN.items()]
    assert found(beyond_the_standard_library(broken)) == {"configs/e.py:1", "configs/e.py:3"}
    assert found(too_long(broken)) == {
        "int_ra_jax/data/j.py:1",
        "int_ra_jax/data/l.py:401",
        "launch.py:151",
    }
    assert found(forbidden_files(["a/utils.py", "a/metrics.py"])) == {"a/utils.py:1"}


@pytest.mark.parametrize("text", ['x = "/work/data"', "see ../shared/spec", "cd /home/me"])
def test_machine_paths_are_recognised(text):
    assert lines_matching([Source("docs/a.md", text)], MACHINE_PATHS, "")
    assert not lines_matching([Source("docs/a.md", "DIR/work/x and a/home")], MACHINE_PATHS, "")
