#!/usr/bin/env python3
"""Completions in the shells they are for, and the manual page as groff formats it.

    shell_help_test.py build/release/bin/polyad
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

PROGRAM = pathlib.Path(sys.argv.pop(1)).resolve()
ENVIRONMENT = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}

# What a shell offers for the last of some words; the script's path is $1, the words follow.
BASH = """source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _polyad; printf '%s\\n' "${COMPREPLY[@]}" """
ZSH = """script=$1; shift
autoload -U compinit; compinit -D -u; source $script
offer() { emulate -L sh; setopt kshglob noshglob braceexpand
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _polyad; printf '%s\\n' "${COMPREPLY[@]}"; }
offer "$@" """
FISH = """source $argv[1]; complete -C (string join ' ' -- $argv[2..])"""


def run(*command):
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=30)


class Completions(unittest.TestCase):
    def offers(self, shell, *words):
        code = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell]
        with tempfile.TemporaryDirectory() as folder:
            script = pathlib.Path(folder) / "polyad"
            script.write_text(run(PROGRAM, "completions", shell).stdout, encoding="utf-8")
            name = [] if shell == "fish" else [shell]
            done = run(shell, "-c", code, *name, str(script), "polyad", *words)
        self.assertEqual(done.stderr, "")
        offered = {line.split("\t")[0] for line in done.stdout.splitlines() if line}
        if shell == "zsh":  # it chooses among what a function offers by itself
            return {word for word in offered if word.startswith(words[-1])}
        return offered

    def test_of_each_shell(self):
        help_text = run(PROGRAM, "serve", "--help").stdout
        kv_flags = set(re.findall(r"^  (--kv-[a-z-]+)", help_text, re.MULTILINE))
        self.assertGreater(len(kv_flags), 3)
        for shell in ("bash", "zsh", "fish"):
            with self.subTest(shell):
                self.assertEqual(self.offers(shell, "com"), {"compress", "completions"})
                self.assertEqual(self.offers(shell, "serve", "--kv-"), kv_flags)
                self.assertEqual(self.offers(shell, "serve", "--kv-dtype", "i"), {"int8", "int4"})
                self.assertEqual(self.offers(shell, "bench", "--mix", "z"), {"zipf"})
                self.assertIn("--kv-mib", self.offers(shell, "generate", "--kv-"))
                self.assertEqual(self.offers(shell, "quantize", "--kv-"), set())
                self.assertEqual(self.offers(shell, "completions", "z"), {"zsh"})

    def test_of_another_shell(self):
        for arguments in ([], ["csh"], ["bash", "zsh"]):
            done = run(PROGRAM, "completions", *arguments)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn("bash, zsh, fish", done.stderr)


class Manual(unittest.TestCase):
    def test_has_every_flag_and_no_warning(self):
        page = run(PROGRAM, "man").stdout
        done = subprocess.run(["groff", "-man", "-Tascii", "-ww", "-P-c"], input=page,
                              capture_output=True, text=True, timeout=30)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        text = re.sub(r".\x08", "", done.stdout)  # bold is struck over
        help_text = run(PROGRAM, "serve", "--help").stdout
        for flag in re.findall(r"^  (--[a-z-]+)", help_text, re.MULTILINE):
            self.assertIn(f"{flag} ", text)
        for command in re.findall(r"^  ([a-z-]+)  ", run(PROGRAM, "help").stdout, re.MULTILINE):
            self.assertRegex(text, rf"(?m)^ +{command}\b")


if __name__ == "__main__":
    unittest.main()
