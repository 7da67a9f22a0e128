"""Every example of the docs: run in order against a real server and held to what the page says comes back, or checked in another way.

blocks.py has the comments that say what is to be done with a block. There is none without.
"""
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
import yaml

import blocks
import session

sys.path.insert(0, str(session.ROOT / "tests/deploy"))

ROOT = session.ROOT
PROGRAM = os.environ["POLYAD_PROGRAM"]
PAGES = [ROOT / "README.md", ROOT / "demo/README.md", ROOT / "load_tests/README.md", *sorted((ROOT / "docs").glob("*.md"))]
# There the blocks that do not say are how scripts are called.
FORMS = (ROOT / "demo/README.md", ROOT / "load_tests/README.md")
COMMANDS = (r"\S*polyad|curl|docker|kubectl|helm|cmake|ninja|(?:\./)?(?:tools|load_tests|tests|demo|deploy|build)/\S+|prometheus|promtool|nginx|openssl|"
            r"systemctl|install|git|pip|python3?|cd|for|export|sed|cp|mkdir")
BLOCKS = {page: blocks.blocks_of(page) for page in PAGES}
for each in (block for page in FORMS for block in BLOCKS[page]):
    each.kind = each.kind or "form"
RUN_KINDS = ("run", "file", "first")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def of_kind(*kinds):
    return [block for page in PAGES for block in BLOCKS[page] if block.kind in kinds]


def replaced(block):
    text = block.text
    for pair in shlex.split(block.words):
        old, _, new = pair.partition("=")
        assert old in text, f"{block}: nothing to replace: {old}"
        text = text.replace(old, new)
    return text


def expected(text):
    """-> the pattern of what a page says is printed"""
    lines = []
    for line in text.rstrip("\n").split("\n"):
        lines.append("(?:.*\n)*?" if line.strip() == "…" else ".*?".join(map(re.escape, line.split("…"))) + r"[ \t]*\n")
    return re.compile("".join(lines))


def is_command(text):
    return re.search(rf"^\s*(\w+=\S* )*({COMMANDS}) ", text, flags=re.M) is not None


def test_every_command_says_what_it_is():
    unmarked = [f"{block}: {block.text.splitlines()[0]}" for page in PAGES if page not in FORMS for block in BLOCKS[page]
                if not block.kind and is_command(block.text)]
    assert not unmarked, "no comment above (tests/docs/blocks.py):\n" + "\n".join(unmarked)


def test_a_block_without_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n<!-- run -->\n\n    true\n\nMore.\n\n    false\n\n```\nfalse\n```\n")
    found = blocks.blocks_of(page)
    assert [(block.line, block.kind, block.text) for block in found] == [(5, "run", "true\n"), (9, "", "false\n"), (11, "", "false\n")]
    for text in ("curl -s x\n", "A=1 polyad serve\n", "# first\ntools/dev help\n"):
        assert is_command(text)
    for text in ("curls are\n", '{"polyad": 1}\n', "w = x for y\n"):
        assert not is_command(text)
    for text in ("Text.\n    indented\n", "<!-- run -->\nText.\n"):
        page.write_text(text)
        with pytest.raises(AssertionError):
            blocks.blocks_of(page)


def test_what_is_printed_is_compared():
    assert expected("ready\n").fullmatch("ready\n")
    assert not expected("ready\n").fullmatch("not ready\n")
    assert expected("a … c\n…\nz\n").fullmatch("a b c\nx\ny\nz\n")
    assert not expected("a … c\n…\nz\n").fullmatch("a b c\nx\ny\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network of its own")
def test_a_page_that_fails_is_noticed():
    for steps in (["false"], ["true", "exit 3"], ["nothing-of-this-name"], ["behind='x'", "echo $unset_variable"]):
        page = session.Page(PROGRAM)
        for step in steps:
            page.add(step)
        assert page.run(), steps
    page = session.Page(PROGRAM)
    page.add("a=1; sleep 1000 & echo begun")
    page.add("echo $a; kill %1")
    assert page.run() == ""
    assert page.outputs == ["begun\n", "1\n"]


def steps_of(page_blocks):
    """-> [(block, text to run)]"""
    steps = []
    for block in page_blocks:
        if block.kind == "file":
            steps.append((block, f"cat >{shlex.quote(block.words)} <<'END-OF-FILE'\n{block.text}END-OF-FILE"))
        elif block.kind == "json" and " " in block.words:
            method, path = block.words.split()
            steps.append((block, f"cat >body.json <<'END-OF-FILE'\n{block.text}END-OF-FILE\n"
                                 f"curl -sS -f -X {method} 127.0.0.1:8080{path} -H 'content-type: application/json' --data-binary @body.json"))
        elif block.kind in RUN_KINDS:
            text = replaced(block) if block.kind == "run" else block.text
            if any(session.behind(line, 0) != line for line in session.logical_lines(text)):
                lines = session.logical_lines(text)
                text = "\n".join(session.behind(line, f"{block.line}-{i}") for i, line in enumerate(lines))
            steps.append((block, text))
        elif block.kind == "prints":
            steps.append((block, ""))
    return steps


def is_run(page):
    return any(block.kind == "run" for block in BLOCKS[page])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network of its own")
@pytest.mark.parametrize("path", [page for page in PAGES if is_run(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_page(path):
    page, numbers = session.Page(PROGRAM), []
    for block, text in steps_of(BLOCKS[path]):
        numbers.append((block, page.add(text) if block.kind != "prints" else len(page.steps) - 1))
    problem = page.run()
    assert not problem, f"{path.name}: {problem}"
    for block, number in numbers:
        if block.kind == "prints":
            assert expected(block.text).fullmatch(page.outputs[number]), f"{block}: expected\n{block.text}got\n{page.outputs[number]}"


# Examples that are not run.

def help_of(command):
    done = subprocess.run([PROGRAM, command, "--help"], capture_output=True, text=True, check=True)
    text = done.stdout
    if "flags of serve" in text or "serve's flags" in text:
        text += subprocess.run([PROGRAM, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    return text


def program_of(words):
    """-> what a command line runs, after variables and `cd x &&`"""
    while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] in ("for", "do", "exec", "sudo")):
        words = words[1:]
    return words


def is_made(flag, text):
    """Whether a script that makes its flags of names has this one's, quoted."""
    return 'add_argument("--" + ' in text and f'"{flag[2:].replace("-", "_")}"' in text


def check_flags(block):
    """Flags of our own programs are there; paths into the repository too."""
    for line in session.logical_lines(block.text):
        line = re.sub(r"(^|\s)#.*", "", line)
        for part in re.split(r"&&|\|\||[|;]", line):
            words = program_of(part.split())
            if not words:
                continue
            if words[0].rsplit("/", 1)[-1] == "polyad" and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]):
                known = set(FLAG.findall(help_of(words[1])))
                unknown = [flag for flag in FLAG.findall(part) if flag not in known]
                assert not unknown, f"{block}: polyad {words[1]} has no {unknown}"
            elif re.match(r"(\./)?(tools|load_tests|demo|tests|deploy)/", words[0]):
                source = ROOT / words[0]
                assert source.exists(), f"{block}: no {words[0]}"
                text = source.read_text()
                unknown = [flag for flag in FLAG.findall(part) if flag not in text and not is_made(flag, text)]
                assert not unknown, f"{block}: {words[0]} has no {unknown}"
        for path in re.findall(r"(?<![\w/.])(?:deploy|tools|docs|demo|load_tests|tests|proto)/[\w./-]+(?![\w./$-])", line):
            if not re.search(r"(^|/)secrets(/|$)", path):
                assert (ROOT / path.rstrip(".")).exists(), f"{block}: no {path}"


@pytest.mark.parametrize("block", of_kind("not run", "form"), ids=str)
def test_flags_and_files_are_there(block):
    check_flags(block)
    for test in re.findall(r"\btests/[\w/.]+\.(?:py|cc)\b", block.words):
        assert (ROOT / test).exists(), f"{block}: no {test}"
    if block.kind == "not run":
        assert block.words, f"{block}: why?"


@pytest.mark.parametrize("block", of_kind("not run", "run"), ids=str)
def test_the_shell_reads_it(block, tmp_path):
    path = tmp_path / "block.sh"
    # A page's variables come from other blocks, and words in capitals or … are for the reader to fill in.
    path.write_text("#!/usr/bin/env bash\n" + block.text.replace("…", "x"))
    done = subprocess.run(["shellcheck", "-S", "warning", "-e", "SC2154,SC2034,SC2164", path], capture_output=True, text=True)
    assert done.returncode == 0, f"{block}: {done.stdout}"


def test_spoiled_examples_are_noticed():
    for text in ("polyad serve --modle x\n", "polyad bench --no-such-flag\n", "load_tests/compare.py --nonsense\n", "tools/nothing\n",
                 "kubectl apply -k deploy/kustomize/overlays/nothing\n"):
        with pytest.raises(AssertionError):
            check_flags(blocks.Block(ROOT / "README.md", 1, text, "form"))


@pytest.mark.parametrize("block", of_kind("json"), ids=str)
def test_json(block, tmp_path):
    # Digests that a page shortens are filled up, each to another.
    digits = iter("0123456789abcdef" * 4)
    text = re.sub(r'"([0-9a-f]*)…"', lambda found: '"' + (found.group(1) + next(digits)).ljust(64, "0") + '"', block.text)
    json.loads(text.replace(":…", ":0"))
    path = tmp_path / "example.json"
    path.write_text(text)
    flags = {"tenants": ["--tenants-file", path], "adapters": ["--adapters-from", path, "--adapter-root", tmp_path]}.get(block.words)
    if flags is None:
        return
    if "identities" in text:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
                        "/CN=localhost", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"], check=True, capture_output=True)
        (tmp_path / "key.pem").chmod(0o600)
        flags += ["--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem", "--tls-client-ca", tmp_path / "cert.pem"]
    done = subprocess.run([PROGRAM, "check-config", "--model", "x", *map(str, flags)], capture_output=True, text=True)
    assert done.returncode == 0, f"{block}: {done.stderr}"
    path.write_text(text.replace("{", '{"nonsense": 1, ', 1))
    done = subprocess.run([PROGRAM, "check-config", "--model", "x", *map(str, flags)], capture_output=True, text=True)
    assert done.returncode == 2, f"{block}: a file with a member too many is taken"


@pytest.mark.parametrize("block", of_kind("yaml"), ids=str)
def test_yaml(block):
    import kubernetes_validate
    for document in yaml.safe_load_all(block.text):
        kubernetes_validate.validate(document, "1.33", strict=True)


@pytest.mark.parametrize("block", of_kind("text"), ids=str)
def test_text_is_no_command(block):
    assert not is_command(block.text), f"{block}: a command"
