"""One shell for the commands of one page, in a network and process namespace of its own: the ports that the docs name are free there,
and everything it started ends with it."""
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 550  # seconds for a page; a busy machine
# A namespace of its own has only a loopback interface, which is down.
_ENTER = """
import fcntl, os, socket, struct, sys
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sH14s", b"lo", 0x49, b""))
os.execvp("bash", ["bash", sys.argv[1]])
"""
_PROLOGUE = """set -euo pipefail
await() {  # PROCESS COMMAND...: until it succeeds, while the process lives
  local process=$1; shift
  until "$@" 2>/dev/null; do kill -0 "$process"; sleep 0.05; done
}
listens() { : >"/dev/tcp/127.0.0.1/$1"; }
"""
# Servers that would hold the shell up, and what to wait for.
_FOREGROUND = ((r"\S*polyad\S* serve ", "grep -q '^polyad ready' {log}"), (r"prometheus ", "grep -q 'Server is ready' {log}"),
               (r"nginx .*daemon off", "listens 8443"))


def behind(command, number):
    """A server in the foreground, put behind; any other command as it is."""
    for pattern, ready in _FOREGROUND:
        if re.match(pattern, command) and not command.rstrip().endswith("&"):
            log = f"server-{number}.log"
            return f"{command} >{log} 2>&1 &\nawait $! {ready.format(log=log)}"
    return command


def logical_lines(text):
    return re.sub(r"\\\n\s*", " ", text).splitlines()


class Page:
    """Collects steps, then runs them. `outputs[i]` is what step i printed."""

    def __init__(self, program):
        self.program = pathlib.Path(program).resolve()
        self.steps = []
        self.outputs = []

    def add(self, text):
        self.steps.append(text)
        return len(self.steps) - 1

    def run(self):
        """-> what went wrong, or nothing"""
        with tempfile.TemporaryDirectory(prefix="polyad-docs-") as folder:
            folder = pathlib.Path(folder)
            folder.chmod(0o755)
            workspace, outputs = folder / "polyad", folder / "outputs"
            outputs.mkdir()
            (workspace / "build/release/bin").mkdir(parents=True)
            (workspace / "build/release/bin/polyad").symlink_to(self.program)
            for name in ("deploy", "demo", "docs", "load_tests", "models", "proto", "tests", "tools"):
                (workspace / name).symlink_to(ROOT / name)
            script = folder / "page.sh"
            script.write_text(self._script(workspace, outputs))
            process = subprocess.Popen(
                ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", _ENTER, script],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
            try:
                said, _ = process.communicate(timeout=PATIENCE)
                problem = "" if process.returncode == 0 else f"ended with {process.returncode}"
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)  # of unshare, which takes the rest with it
                said, problem = process.communicate()[0], "did not end"
            for number in range(len(self.steps)):
                path = outputs / str(number)
                self.outputs.append(path.read_text(errors="replace") if path.exists() else None)
            if problem:
                last = max((i for i, text in enumerate(self.outputs) if text is not None), default=0)
                logs = "".join(f"\n{path.name}:\n{path.read_text(errors='replace')[-3000:]}" for path in workspace.rglob("*.log"))
                problem = f"{problem} at:\n{self.steps[last]}\nwhich printed:\n{self.outputs[last] if self.outputs else ''}\n{said}{logs}"
            return problem

    def _script(self, workspace, outputs):
        lines = [_PROLOGUE, f"cd {shlex.quote(str(workspace))}", f"export PATH={shlex.quote(str(workspace / 'build/release/bin'))}:$PATH",
                 "unset POLYAD_PROGRAM POLYAD_DEMO_MODEL POLYAD_DEPLOY_FOLDER"]
        for number, step in enumerate(self.steps):
            # Braces, not a subshell: variables and jobs stay.
            lines += ["{", step.rstrip("\n"), f"}} >{shlex.quote(str(outputs / str(number)))} 2>&1 </dev/null"]
        return "\n".join(lines) + "\n"
