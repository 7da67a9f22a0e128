#!/usr/bin/env python3
"""Makes a Debian 12 to build images on, where none can be pulled: the test's stand-in for debian:bookworm-slim.

  image_base.py FILE.tar       does nothing where FILE.tar is there already
"""
import os
import pathlib
import shutil
import subprocess
import sys

SKIPPED = 77


def main():
    tar = pathlib.Path(sys.argv[1])
    if tar.exists():
        return
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        print("needs root and mmdebstrap: skipped")
        sys.exit(SKIPPED)
    tar.parent.mkdir(parents=True, exist_ok=True)
    part = tar.with_suffix(".part.tar")
    subprocess.run(["mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "bookworm", part], check=True)
    part.replace(tar)


if __name__ == "__main__":
    main()
