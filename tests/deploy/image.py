"""An image of deploy/docker built by buildah, and a container of it: its own mounts, root read-only, user 65532, no privileges."""
import json
import os
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
USER = 65532
BASE = "localhost/debian"  # of image_base.py's file

# Mounts first, all in a namespace of the container's own; then the image's file system is sealed and entered.
_ENTER = """
set -eu
root=$1; shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o size=64m,mode=1777 tmpfs "$root/tmp"
while [ "$1" != -- ]; do
  if [ -f "$2" ]; then touch "$root/$1"; else mkdir -p "$root/$1"; fi
  case "$3" in
    tmpfs) mount -t tmpfs -o "$2" tmpfs "$root/$1" ;;
    rw) mount --bind "$2" "$root/$1" ;;
    ro) mount --bind "$2" "$root/$1"; mount -o remount,bind,ro "$root/$1" ;;
  esac
  shift 3
done
shift
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot --userspec=65532:65532 --groups= "$root" "$@"
"""


class Store:
    """buildah's storage, under build/."""

    def __init__(self, folder):
        self._command = ["buildah", "--root", str(folder / "store"), "--runroot", str(folder / "run"),
                         "--storage-driver", "vfs"]

    def run(self, *arguments):
        return subprocess.run([*self._command, *map(str, arguments)], check=True, stdout=subprocess.PIPE,
                              text=True).stdout.strip()

    def has(self, image):
        return subprocess.run([*self._command, "images", "-q", image], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, check=False).returncode == 0

    def clean(self):
        """Away with what a run that was ended left behind."""
        self.run("rm", "-a")
        self.run("rmi", "--prune")

    def add_base(self, name, tar):
        stamp = str(tar.stat().st_mtime_ns)
        if self.has(name) and self.config_of(name)["config"].get("Labels", {}).get("stamp") == stamp:
            return
        if self.has(name):
            self.run("rmi", "-f", name)
        container = self.run("from", "scratch")
        self.run("add", "-q", container, tar, "/")
        self.run("config", "--label", f"stamp={stamp}", container)
        self.run("commit", "-q", "--rm", container, name)

    def build(self, dockerfile, context, name, **arguments):
        flags = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        self.run("bud", "-q", "--format", "docker", "--isolation", "chroot", "--layers=false", "-f", dockerfile, *flags,
                 "-t", name, context)

    def config_of(self, name):
        return json.loads(self.run("inspect", "--type", "image", name))["Docker"]

    def open(self, name):
        """-> (container, folder of its file system)"""
        container = self.run("from", "--pull-never", name)
        return container, pathlib.Path(self.run("mount", container))

    def close(self, container):
        self.run("umount", container)
        self.run("rm", container)


def context_of(program, folder):
    """What `docker build` would send of the repository, with a built program in it."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("deploy/docker", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".dockerignore", folder)
    subprocess.run([folder / "deploy/docker/prebuilt", program, folder / "prebuilt"], check=True)
    return folder


def start(root, command, mounts=(), environment=None, network=None, **options):
    """`mounts`: (path in the image, path here, "ro" or "rw") or (path in the image, options, "tmpfs"). `network`: a process in
    whose network namespace it runs."""
    listed = [str(word) for mount in mounts for word in (mount[0].lstrip("/"), *mount[1:])]
    entered = ["nsenter", f"--net=/proc/{network.pid}/ns/net"] if network else []
    return subprocess.Popen([*entered, "unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "enter", str(root),
                             *listed, "--", *command],
                            env={"PATH": os.environ["PATH"], **(environment or {})}, text=True, **options)
