"""Chromium without a window, spoken to over a pipe: what a page says when a person uses it.

The protocol is DevTools', as JSON with a zero octet behind each message. Descriptor 3 is what the
browser reads, 4 what it writes (`--remote-debugging-pipe`), so there is no port and no WebSocket.
"""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

from patience import patience

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
#: Seconds for one answer: never waited out when all is well.
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--remote-debugging-pipe", "--window-size=1280,720", "about:blank"),
)


class Browser:
    """One browser with one page. What it complains of is in `complaints`."""

    def __init__(self, directory: Path) -> None:
        assert PROGRAM is not None
        theirs, self._to = os.pipe()
        self._from, back = os.pipe()

        def three_and_four() -> None:
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs, back)]
            for number, end in enumerate(ends, 3):
                os.dup2(end, number)

        self._process = subprocess.Popen(
            [PROGRAM, f"--user-data-dir={directory}", *OPTIONS],
            preexec_fn=three_and_four,  # noqa: PLW1509 (no thread runs here)
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(back)
        self._numbers = itertools.count(1)
        self._received = b""
        self._session: str | None = None
        self.complaints: list[Any] = []
        target = self.call("Target.getTargets")["targetInfos"][0]["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(patience(3))
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, **params: Any) -> Any:
        """What the browser answers."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            if answer["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                self.complaints.append(answer["params"])
            if answer["method"] == "Log.entryAdded":
                self.complaints.append(answer["params"]["entry"])

    def _next(self) -> Any:
        while b"\0" not in self._received:
            assert select.select([self._from], [], [], patience(3))[0], "it does not answer"
            data = os.read(self._from, 1 << 20)
            assert data, "the browser has ended"
            self._received += data
        one, _, self._received = self._received.partition(b"\0")
        return json.loads(one)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; what it throws is an error here."""
        told = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def open(self, path: Path, address: str = "") -> None:
        """Opens a page, and waits until it is there."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=f"{path.as_uri()}{address}")
        self.evaluate(
            "new Promise((done) => document.readyState === 'complete'"
            " ? done() : window.addEventListener('load', done))"
        )

    def until(self, expression: str) -> None:
        """Waits until this is true."""
        milliseconds = 1000 * patience()
        assert self.evaluate(
            f"(async () => {{ const end = Date.now() + {milliseconds};"
            f" while (!({expression}) && Date.now() < end)"
            " await new Promise((done) => setTimeout(done, 10));"
            f" return {expression}; }})()"
        ), f"in vain: {expression}"

    def press(self, key: str, times: int = 1) -> None:
        """Presses a key."""
        text = {"text": key} if len(key) == 1 else {}
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that a selector finds."""
        found: list[str] = self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)"
        )
        return found

    def picture(self, path: Path) -> None:
        """Writes a picture of the page."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
