#!/usr/bin/env python3
"""Makes a virtual environment for tests, where it is not there yet as its requirements (tests/e2e/python's) have it.

  make_venv.py FOLDER [REQUIREMENTS]
"""
import hashlib
import pathlib
import subprocess
import sys
import venv

HERE = pathlib.Path(__file__).resolve().parent


def main():
    folder = pathlib.Path(sys.argv[1])
    requirements = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "requirements.txt"
    stamp, digest = folder / "installed", hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    venv.create(folder, with_pip=True, clear=True)
    subprocess.run([folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements],
                   check=True)
    stamp.write_text(digest)


if __name__ == "__main__":
    main()
