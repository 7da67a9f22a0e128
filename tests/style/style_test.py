#!/usr/bin/env python3
"""The rules of docs/STYLE.md and docs/ARCHITECTURE.md that a machine can check.

Fails on: an include that points up or sideways between rooms, a banned word, a source over the hard size, a source or
header without a test, a family without a docs row, a stage of docs/life_of_a_request.md that does not exist, a header
without `#pragma once` or an opening comment. Lists, without failing, files and functions grown past the aimed sizes.

  style_test.py REPOSITORY_ROOT
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
HARD_LINES, AIM_LINES, FUNCTION_LINES = 600, 400, 70

# Room -> rooms it may include, besides itself. The text of docs/ARCHITECTURE.md says why.
ALLOWED = {
    "kernels/api": set(),
    "kernels/reference": {"kernels/api"},
    "kernels/cpu": {"kernels/api"},
    "kernels/simt": set(),
    "kernels/cuda": {"kernels/api", "kernels/simt"},
    "kernels/shard": {"kernels/api"},
    "kernels": {"kernels/api", "kernels/cuda", "kernels/simt", "kernels/cpu", "kernels/reference", "kernels/shard"},
    "engine/base": set(),
    "engine/request": {"engine/base"},
    "engine/io": {"engine/base", "kernels/api"},
    "engine/spec": {"engine/io", "engine/base", "kernels/api"},
    "engine/text": {"engine/io", "engine/base"},
    "engine/constraint": {"engine/text", "engine/request", "engine/io", "engine/base"},
    "engine/adapters": {"engine/spec", "engine/io", "engine/base", "kernels/api"},
    "engine/cache": {"engine/base", "kernels/api"},
    "engine/model": {"engine/adapters", "engine/cache", "engine/spec", "engine/io", "engine/request", "engine/base", "kernels/api"},
    "engine/runtime": {"engine/model", "engine/adapters", "engine/cache", "engine/constraint", "engine/text", "engine/request", "engine/spec", "engine/base", "kernels/api"},
    "engine": {"engine/runtime", "engine/model", "engine/adapters", "engine/cache", "engine/constraint", "engine/text", "engine/spec", "engine/io", "engine/request", "engine/base", "kernels/api"},
    "server": {"engine", "engine/request", "engine/adapters", "engine/spec", "engine/io", "engine/text", "engine/base", "kernels/api", "kernels", "proto"},
}
BANNED = {
    r"\bTODO\b|\bFIXME\b|\bXXX\b|\bHACK\b": "unfinished work goes into an issue, not into the code",
    r"std::regex": "backtracks without a bound; use RE2",
    r"\balloca\b": "unbounded stack",
    r"\bthrow\b(?!\()": "nothing of ours throws",
    r"using namespace ": "name what you use",
    r"#include <iostream>": "use Log or stdio",
    r"\bstrcpy\b|\bsprintf\b|\bgets\b": "unbounded copy",
}
errors, notes = [], []


def tracked(*patterns):
    out = subprocess.run(["git", "-C", str(ROOT), "ls-files", *patterns], capture_output=True, text=True, check=True).stdout
    return [pathlib.Path(line) for line in out.splitlines() if (ROOT / line).exists()]


def room_of(path):
    parts = path.parts
    for depth in (2, 1):
        room = "/".join(parts[:depth])
        if room in ALLOWED and len(parts) > depth:
            return room
    return parts[0] if parts[0] in ("proto",) else None


def code_only(text):
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)


def check_includes(path, text):
    room = room_of(path)
    if room is None:
        return
    for target in re.findall(r'^#include "([^"]+)"', text, flags=re.M):
        other = room_of(pathlib.Path(target))
        if other is None:
            if "/" not in target:
                errors.append(f"{path}: include \"{target}\" is not repo-root relative")
            continue
        if other != room and other not in ALLOWED[room]:
            errors.append(f"{path}: room {room} may not include {target} (room {other})")


def check_kernel_users(path, text):
    if path.parts[0] == "server" and path.name != "main.cc" and '"kernels/backend_factory.h"' in text:
        errors.append(f"{path}: only server/main.cc names a concrete backend")


def check_words(path, text):
    code = code_only(text)
    for pattern, why in BANNED.items():
        haystack = text if "TODO" in pattern else code
        for match in re.finditer(pattern, haystack):
            line = haystack[: match.start()].count("\n") + 1
            errors.append(f"{path}:{line}: '{match.group(0).strip()}': {why}")


def check_size(path, text):
    lines = text.count("\n")
    if lines > HARD_LINES:
        errors.append(f"{path}: {lines} lines, the limit is {HARD_LINES}")
    elif lines > AIM_LINES:
        notes.append(f"{path}: {lines} lines, the aim is {AIM_LINES}")
    start = None
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"^[A-Za-z].*\) (const )?(override )?{$", line) and not line.startswith(("namespace", "class", "struct", "enum")):
            start = number
        if line == "}" and start:
            if number - start > FUNCTION_LINES:
                notes.append(f"{path}:{start}: a function of {number - start} lines, the aim is {FUNCTION_LINES}")
            start = None


def check_header(path, text):
    if not text.startswith("#pragma once\n"):
        errors.append(f"{path}: headers start with #pragma once")
    elif not re.match(r"#pragma once\n\n// ", text):
        errors.append(f"{path}: headers open with prose: the idea, the owner, the thread, the errors")


def covered_elsewhere():
    """tests/style/covered_by.txt: sources whose behaviour is tested through another file's door, and the test that does it."""
    pairs = {}
    for line in (ROOT / "tests/style/covered_by.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            source, test = line.split()
            pairs[pathlib.Path(source)] = pathlib.Path(test)
    return pairs


def check_tests_exist(paths):
    tests = {p.name for p in tracked("tests/*") if p.suffix == ".cc"}
    covered = covered_elsewhere()
    for source, test in covered.items():
        for named in (source, test):
            if not (ROOT / named).exists():
                errors.append(f"tests/style/covered_by.txt: {named} does not exist")
    for path in paths:
        if path.parts[0] not in ("engine", "kernels", "server") or path.suffix != ".cc":
            continue
        if path.parent.name == "families":
            continue  # their goldens are their tests: check_adapter_rows
        if f"{path.stem}_test.cc" not in tests and path not in covered:
            errors.append(f"{path}: no {path.stem}_test.cc, and no line in tests/style/covered_by.txt")


def check_adapter_rows():
    """docs/adapters.md: a row for every type in the family table, goldens in every row, a row for every golden."""
    text = (ROOT / "docs/adapters.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| family |")]
    types = re.findall(r'POLYAD_FAMILY\(\w+, "([^"]+)"', (ROOT / "engine/adapters/families/families.inc").read_text())
    for name in types:
        if name != "container" and not any(f"`{name}`" in row for row in rows):
            errors.append(f"docs/adapters.md: no row for {name}")
    named = set()
    for row in rows:
        family = row.split("|")[1].strip()
        goldens = re.findall(r"`([\w.]+/[\w.]+)`", row.rstrip("|").split("|")[-1])
        if not goldens:
            errors.append(f"docs/adapters.md: {family} has no golden")
        for golden in goldens:
            if not (ROOT / "tests/golden/adapters" / golden / "goldens.safetensors").exists():
                errors.append(f"docs/adapters.md: {family}: tests/golden/adapters/{golden} has no golden")
        named.update(goldens)
    for path in tracked("tests/golden/adapters/*"):
        golden = "/".join(path.parts[3:5])
        if path.name == "goldens.safetensors" and golden not in named:
            errors.append(f"{path}: no row of docs/adapters.md names {golden}")


def check_docs():
    check_adapter_rows()
    life = (ROOT / "docs/life_of_a_request.md").read_text()
    stages = re.findall(r"`((?:server|engine|kernels)/[\w/]+\.(?:cc|h))`\s+`(\w+)`", life)
    if len(stages) < 14:
        errors.append(f"docs/life_of_a_request.md: {len(stages)} stages, expected at least 14")
    for file, name in stages:
        body = (ROOT / file).read_text() if (ROOT / file).exists() else ""
        if not re.search(rf"\b{name}\b", body):
            errors.append(f"docs/life_of_a_request.md: {file} has no {name}")
    for required in ("README.md", "CHANGELOG.md", "docs/ARCHITECTURE.md", "docs/STYLE.md", "docs/GLOSSARY.md", "docs/HACKING.md"):
        if not (ROOT / required).exists():
            errors.append(f"{required} is missing")


def check_paths_of_machines():
    pattern = re.compile(r"/(?:work|root)/|/tmp/(?!polyad)")
    for path in tracked():
        if path.suffix in (".safetensors", ".gguf", ".gz", ".bin", ".png", ".npz") or path == pathlib.Path("tests/style/style_test.py"):
            continue
        for number, line in enumerate((ROOT / path).read_text(errors="replace").splitlines(), 1):
            if pattern.search(line):
                errors.append(f"{path}:{number}: names a path of one machine")


def main():
    sources = tracked("*.cc", "*.h", "*.cu", "*.cuh")
    for path in sources:
        text = (ROOT / path).read_text()
        check_includes(path, text)
        check_kernel_users(path, text)
        check_words(path, text)
        check_size(path, text)
        if path.suffix in (".h", ".cuh"):
            check_header(path, text)
    check_tests_exist(sources)
    check_docs()
    check_paths_of_machines()
    for note in notes:
        print("note:", note)
    for error in errors:
        print("error:", error)
    print(f"{len(sources)} sources, {len(errors)} errors, {len(notes)} notes")
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
