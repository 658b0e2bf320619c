"""The house rules of docs/architecture.md, read from the source with ``ast``.

Each check returns lines of the form ``file:line: what is wrong; the rule``, so that a failure says
where to go. The last tests feed the checks with sources that break the rules.
"""

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "int_ra_jax"

# What each part may import of the others; a part may always import itself.
_L1 = {"common", "data", "models"}
_L3 = {*_L1, "run", "evaluation", "training", "retrieval"}
MAY_IMPORT = {
    "common": set(),
    "data": {"common"},
    "models": {"common"},
    "run": _L1,
    "evaluation": {*_L1, "run"},
    # Training watches a few figures of a split: the judge, and nothing else of evaluation.
    "training": {*_L1, "run", "evaluation.judge"},
    "retrieval": {*_L1, "run"},
    "comparison": {*_L3, "configs"},  # what a table names are config files
    "data_prep": {"common", "data.schema", "data.validation", "data.images"},
    "configs": set(),
    "launch": {*_L3, "comparison", "configs", "data_prep"},
    "benchmarks": {*_L3, "comparison", "configs", "data_prep"},
}
FORBIDDEN_NAMES = {"utils.py", "util.py", "helpers.py", "misc.py", "tools.py"}
MAX_FILE, MAX_FUNCTION, MAX_LOOP, MAX_LAUNCH = 400, 60, 120, 150
LOOP = f"{PACKAGE}/training/loop.py"
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
    def part(self):
        """Returns the row of MAY_IMPORT that holds this file, or None."""
        pieces = self.path.removesuffix(".py").split("/")
        if pieces[0] == PACKAGE:
            return pieces[1] if len(pieces) > 2 else None
        return pieces[0] if pieces[0] in MAY_IMPORT else None

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


def imports(source):
    """Yields (line, absolute module name) for every import, inside functions too."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A name may be a module or something in one; both prefixes give the same answer.
            base = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def target_part(module):
    """Returns (part, rest) of an imported module of this project, or None for any other."""
    pieces = module.split(".")
    if pieces[0] == PACKAGE and len(pieces) > 1:
        return pieces[1], ".".join(pieces[2:])
    return (pieces[0], ".".join(pieces[1:])) if pieces[0] in MAY_IMPORT else None


def wrong_directions(sources):
    problems = []
    for source in sources:
        if source.part is None:
            continue
        allowed = MAY_IMPORT.get(source.part, set()) | {source.part}
        for line, module in imports(source):
            target = target_part(module)
            if target is None or target[0] in allowed:
                continue
            if any(f"{target[0]}.{target[1]}.".startswith(f"{name}.") for name in allowed):
                continue
            problems.append(
                f"{source.path}:{line}: imports {module}; {source.part} may import "
                f"{', '.join(sorted(allowed - {source.part})) or 'no other part'}"
            )
    return problems


def unknown_parts(sources):
    return [
        f"{source.path}:1: part {source.part!r} has no row in the layer table of test_layout.py"
        for source in sources
        if source.path.startswith(f"{PACKAGE}/") and source.part not in {None, *MAY_IMPORT}
    ]


def import_cycles(sources):
    modules = {source.module: source for source in sources}
    graph = {}
    for name, source in modules.items():
        targets = set()
        for _, imported in imports(source):
            while imported and imported not in modules:
                imported = imported.rpartition(".")[0]
            targets.add(imported)
        graph[name] = targets - {"", name}
    problems, done = [], set()

    def visit(name, trail):
        if name in trail:
            cycle = [*trail[trail.index(name) :], name]
            problems.append(f"{modules[name].path}:1: import cycle {' -> '.join(cycle)}")
        elif name not in done:
            for target in sorted(graph[name]):
                visit(target, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return problems


def third_party_imports(sources):
    problems = []
    for source in sources:
        in_package = source.path.startswith(f"{PACKAGE}/")
        for line, module in imports(source):
            top, where = module.split(".")[0], f"{source.path}:{line}: imports {module}; "
            tensorflow = top in {"tensorflow", "tensorflow_datasets", "tensorflow_text"}
            if tensorflow and in_package and source.part != "data":
                problems.append(where + "tensorflow is for int_ra_jax/data only")
            if top in {"torch", "torchvision"} and in_package:
                problems.append(where + "torch is never imported by int_ra_jax")
            if top == "orbax" and in_package and source.path != f"{PACKAGE}/run/checkpoint.py":
                problems.append(where + "orbax is for run/checkpoint.py only")
            allowed = {"ml_collections", "configs", *sys.stdlib_module_names}
            if source.part == "configs" and top not in allowed:
                problems.append(where + "configs import ml_collections and the stdlib only")
            if module == "__future__.annotations" and in_package:
                problems.append(where + "it switches the run-time shape checks off")
            if module.startswith("."):
                problems.append(where + "imports are absolute")
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
        if source.part == "configs":
            continue  # a get_config is one table of keys
        for node in ast.walk(source.tree):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and (lines := length(node)) > limit:
                problems.append(
                    f"{source.path}:{node.lineno}: {node.name} has {lines} lines; at most {limit} "
                    "without the docstring"
                )
    return problems


def packages_with_code(sources):
    problems = []
    for source in sources:
        if not source.path.endswith("__init__.py"):
            continue
        body = source.tree.body
        if body and ast.get_docstring(source.tree) is not None:
            body = body[1:]
        problems += [
            f"{source.path}:{node.lineno}: code in __init__.py; a docstring only" for node in body
        ]
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


def test_imports_point_downwards_and_siblings_ignore_each_other(sources):
    assert len(sources) > 20
    report(unknown_parts(sources) + wrong_directions(sources))


def test_no_module_imports_itself_through_others(sources):
    report(import_cycles(sources))


def test_tensorflow_torch_and_orbax_stay_where_they_belong(sources):
    report(third_party_imports(sources))


def test_files_and_functions_are_short(sources):
    report(too_long(sources))


def test_package_files_hold_a_docstring_only(sources):
    report(packages_with_code(sources))


def test_no_file_is_named_after_nothing():
    report(forbidden_files(tracked_files()))


def test_no_todo_is_left():
    # Written in two parts, so that this line is not found itself.
    pattern = r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b"
    report(lines_matching(read_sources({".py"}), pattern, "finish it or leave it out"))


def test_no_file_knows_the_machine_it_was_written_on():
    files = [s for s in read_sources(TEXT_FILES) if not s.path.startswith("tests/")]
    report(lines_matching(files, MACHINE_PATHS, "no path of one machine"))


@pytest.mark.parametrize("part", ["models", "training.step", "evaluation.metrics", "benchmarks"])
def test_what_runs_on_a_bare_accelerator_machine_does_not_load_tensorflow(part, sources):
    package, _, rest = part.partition(".")
    prefix = f"{package if package == 'benchmarks' else f'{PACKAGE}.{package}'}"
    prefix += f".{rest}" if rest else ""
    modules = [s.module for s in sources if f"{s.module}.".startswith(f"{prefix}.")]
    if not modules and part == "benchmarks":
        pytest.skip("a build without the benchmarks")
    if not modules:
        pytest.fail(f"no module matches {prefix}; the rule in test_layout.py is out of date")
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


BROKEN = {
    f"{PACKAGE}/common/a.py": f"from {PACKAGE}.models import b",
    f"{PACKAGE}/models/b.py": f"def f():\n    import {PACKAGE}.data.images",
    f"{PACKAGE}/training/c.py": f"from {PACKAGE} import retrieval\n"
    f"from {PACKAGE}.evaluation import report",
    "data_prep/d.py": f"from {PACKAGE}.data import schema\nfrom {PACKAGE}.data.text import x",
    "configs/e.py": "import jax\nfrom configs import base\nfrom int_ra_jax.common import types",
    f"{PACKAGE}/evaluation/f.py": "import torch\nimport tensorflow as tf\nimport orbax.checkpoint",
    f"{PACKAGE}/evaluation/g.py": "from __future__ import annotations\nfrom . import f",
    f"{PACKAGE}/data/__init__.py": '"""Text."""\nfrom os import path',
    f"{PACKAGE}/data/h.py": f"from {PACKAGE}.data.i import x",
    f"{PACKAGE}/data/i.py": f"import {PACKAGE}.data.h",
    f"{PACKAGE}/data/j.py": "def long():\n" + "    x = 1\n" * 60,
    f"{PACKAGE}/data/k.py": 'def documented():\n    """'
    + "x\n" * 60
    + '"""\n'
    + "    x = 1\n" * 59,
    f"{PACKAGE}/data/l.py": "x = 1\n" * 401,
    LOOP: "def train():\n" + "    x = 1\n" * 119,
    f"{PACKAGE}/extra/m.py": "",
    "launch.py": "x = 1\n" * 151,
}


def found(problems):
    """Returns file:line of each problem without the package's name."""
    return {problem.split(": ")[0].removeprefix(f"{PACKAGE}/") for problem in problems}


def test_each_check_finds_what_breaks_its_rule():
    broken = [Source(path, text) for path, text in BROKEN.items()]
    assert found(wrong_directions(broken)) == {
        "common/a.py:1",
        "models/b.py:2",
        "training/c.py:1",
        "training/c.py:2",
        "data_prep/d.py:2",
        "configs/e.py:3",
    }
    assert found(third_party_imports(broken)) == {
        "configs/e.py:1",
        "configs/e.py:3",
        "evaluation/f.py:1",
        "evaluation/f.py:2",
        "evaluation/f.py:3",
        "evaluation/g.py:1",
        "evaluation/g.py:2",
    }
    assert found(packages_with_code(broken)) == {"data/__init__.py:2"}
    assert found(too_long(broken)) == {"data/j.py:1", "data/l.py:401", "launch.py:151"}
    assert found(unknown_parts(broken)) == {"extra/m.py:1"}
    (cycle,) = import_cycles([s for s in broken if s.path.endswith(("h.py", "i.py"))])
    assert "data.h -> int_ra_jax.data.i -> int_ra_jax.data.h" in cycle
    assert found(forbidden_files(["a/utils.py", "a/metrics.py"])) == {"a/utils.py:1"}


@pytest.mark.parametrize("text", ['x = "/work/data"', "see ../shared/spec", "cd /home/me"])
def test_machine_paths_are_recognised(text):
    assert lines_matching([Source("docs/a.md", text)], MACHINE_PATHS, "")
    assert not lines_matching([Source("docs/a.md", "DIR/work/x and a/home")], MACHINE_PATHS, "")
