"""A headless Chromium, driven over the DevTools protocol by a pipe (https://chromedevtools.github.io/devtools-protocol/)."""
import base64
import json
import os
import queue
import subprocess
import threading
import time

PROGRAM = "chromium-headless-shell"
PATIENCE_SECONDS = 120  # a busy machine
KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), " ": (32, " "), "ArrowDown": (40, "")}


class Browser:
    """One page. `asked` has the URLs that it asked for, `complaints` what it wrote to its console."""

    def __init__(self, folder, width=1280, height=760):
        to_browser, ours = os.pipe()
        theirs, from_browser = os.pipe()
        # The protocol is spoken on the descriptors 3 and 4. As root there is no sandbox, and the only page is ours.
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "--", PROGRAM, "--no-sandbox", "--remote-debugging-pipe",
             "--disable-gpu", f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self._to, self._from = os.fdopen(ours, "wb", buffering=0), os.fdopen(theirs, "rb", buffering=0)
        self._answers, self._number, self._session = queue.Queue(), 0, None
        self.asked, self.complaints = [], []
        threading.Thread(target=self._read, daemon=True).start()
        target = self.call("Target.createTarget", url="about:blank", width=width, height=height)["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.call(f"{domain}.enable")

    def _read(self):
        rest = b""
        while chunk := self._from.read(65536):
            *messages, rest = (rest + chunk).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers.put(message)
                else:
                    self._note(message["method"], message["params"])

    def _note(self, method, params):
        if method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("warning", "error"):
            self.complaints.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))

    def call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": self._session} if self._session else {})
        self._to.write(json.dumps(message).encode() + b"\0")
        answer = self._answers.get(timeout=PATIENCE_SECONDS)
        assert answer["id"] == self._number and "error" not in answer, f"{method}: {answer}"
        return answer["result"]

    def value(self, expression):
        """-> what the page's JavaScript says."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def until(self, expression):
        """Waits until it holds -> its value."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (value := self.value(expression)):
            assert time.monotonic() < deadline, f"never held: {expression}\n{self.value('document.body.innerText')}"
            time.sleep(0.02)
        return value

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def press(self, key):
        code, text = KEYS[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code="Space" if key == " " else key, windowsVirtualKeyCode=code,
                      text=text if kind == "keyDown" else "")

    def write(self, text):
        self.call("Input.insertText", text=text)

    def tab_to(self, condition):
        """Presses Tab until `condition` holds for the element that has the focus, called `it`."""
        for _ in range(60):
            if self.value(f"((it) => {condition})(document.activeElement)"):
                return
            self.press("Tab")
        raise AssertionError(f"the keyboard never gets to {condition}")

    def prefer(self, scheme):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def unnamed(self):
        """-> the roles of things to use that have no name for who cannot see them."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        used = ("button", "textbox", "checkbox", "combobox", "spinbutton", "meter")
        return [node["role"]["value"] for node in nodes
                if not node.get("ignored") and node["role"]["value"] in used and not node.get("name", {}).get("value")]

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE_SECONDS)
