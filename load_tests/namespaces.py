"""Machines of a small network, as network namespaces: one hub, which this program moves into, and
others on its bridge. Linux, root and iproute2; nothing is named, nothing of the host's is touched,
and the kernel takes all of it away with the last process in it.
"""

import ctypes
import os
import pathlib
import shutil
import signal
import subprocess

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
OWN = "/proc/thread-self/ns/net"
HUB_ADDRESS = "198.18.0.1"  # of the network set aside for such tests, RFC 2544

_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """Why there can be no namespaces here."""


def call(name, *arguments):
    if getattr(_libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def ip(*words, inside=None):
    """Runs ip(8), in another namespace where `inside` is its descriptor."""
    enter = None if inside is None else lambda: call("setns", inside, CLONE_NEWNET)
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, preexec_fn=enter)


def end_with_parent():
    """A preexec_fn: nothing is left behind where this program is killed."""
    call("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL))


def enter_hub():
    """This thread, and the processes it starts, from now on have a network of their own."""
    if os.geteuid() != 0:
        raise Unavailable("network namespaces need root")
    if shutil.which("ip") is None:
        raise Unavailable("network namespaces need ip (package iproute2)")
    try:
        call("unshare", CLONE_NEWNET)
        ip("link", "set", "lo", "up")
        ip("link", "add", "hub", "type", "bridge")
        ip("address", "add", f"{HUB_ADDRESS}/24", "dev", "hub")
        ip("link", "set", "hub", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or error
        raise Unavailable(f"no network namespaces here: {said}") from error


class Machine:
    """A namespace with one address on the hub's bridge; it outlives its processes."""

    def __init__(self, number):
        self.address = f"198.18.0.{10 + number}"
        hub = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            call("unshare", CLONE_NEWNET)
            self.descriptor = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            call("setns", hub, CLONE_NEWNET)
            os.close(hub)
        place = pathlib.Path(f"/proc/{os.getpid()}/fd/{self.descriptor}")
        end = f"machine-{number}"
        ip("link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", str(place))
        ip("link", "set", end, "master", "hub", "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
        ):
            ip(*words, inside=self.descriptor)

    def enter(self):
        """For the child, before its program: a preexec_fn."""
        call("setns", self.descriptor, CLONE_NEWNET)
        end_with_parent()

    def close(self):
        os.close(self.descriptor)
