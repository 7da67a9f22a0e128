"""polyad as a child process on free ports, for tests and fuzzing."""
import os
import re
import subprocess
import threading

PATIENCE = 600  # seconds; a busy machine
SKIPPED = 77  # what ctest takes for a test that could not run


def run(*arguments, environment=None):
    """The program, with no settings from the environment but those of `environment`. -> its CompletedProcess"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POLYAD_")}
    return subprocess.run([os.environ["POLYAD_PROGRAM"], *map(str, arguments)], env=kept | (environment or {}),
                          capture_output=True, text=True, timeout=PATIENCE)


class Server:
    """`with Server([...flags]) as server: server.http, server.grpc, server.log()`"""

    def __init__(self, flags, environment=None):
        self.process = subprocess.Popen(
            [os.environ["POLYAD_PROGRAM"], "serve", "--grpc-listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0",
             "--http-listen=127.0.0.1:0", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | (environment or {}))
        self._lines = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        ready = self.process.stdout.readline()
        found = re.match(r"polyad ready grpc=(\S+) admin=(\S+) http=(\S+)", ready)
        if not found:
            self.stop()
            raise RuntimeError(f"polyad did not start: {self.log()}")
        self.grpc, self.admin, self.http = found.groups()

    def _read_log(self):
        for line in self.process.stderr:
            self._lines.append(line)

    def log(self):
        return "".join(self._lines)

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        """-> the exit code"""
        if self.alive():
            self.process.terminate()
        code = self.process.wait(timeout=PATIENCE)
        self._reader.join(timeout=60)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
