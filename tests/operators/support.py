"""Starts servers for the tests of what operators see: nodes, Redis, and a receiver of webhooks."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("SERVER_BINARY", str(ROOT / "target/debug/switchboard"))
KEY = "operators-key-of-the-tests"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def eventually(what, check, within=30):
    until = time.monotonic() + within
    while time.monotonic() < until:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {within} s: {what}")


def request(method, url, body=None, key=None, headers=None):
    """The status and the text of the answer; 0 if there was none."""
    headers = dict(headers or {})
    if key:
        headers["authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    if data is not None:
        headers.setdefault("content-type", "application/json")
    asked = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


class Redis:
    def __init__(self):
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self.folder.name],
            stdout=subprocess.DEVNULL,
        )
        eventually("Redis answers", self.answers)
        self.url = f"redis://127.0.0.1:{self.port}"

    def answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


class Node:
    """A node with free ports, of which the log is kept."""

    def __init__(self, **settings):
        self.port, self.admin_port = free_port(), free_port()
        self.url, self.admin = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.admin_port}"
        settings = {
            "listen": f"127.0.0.1:{self.port}",
            "admin.listen": f"127.0.0.1:{self.admin_port}",
            "admin.token": KEY,
            **settings,
        }
        arguments = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        self.log = tempfile.NamedTemporaryFile(mode="r", suffix=".log")
        self.process = subprocess.Popen([BINARY, *arguments], stderr=open(self.log.name, "w"))
        eventually("the node is ready", lambda: request("GET", f"{self.admin}/readyz")[0] == 200)

    def login(self, name):
        """Opens an HTTP session, which lives for a while without a request. Returns its token."""
        status, text = request("POST", f"{self.url}/v1/sessions", {"login": {"name": name}})
        assert status == 201, text
        return json.loads(text)["token"]

    def send(self, token, message):
        status, text = request("POST", f"{self.url}/v1/messages", message, key=token)
        assert status == 202, text

    def lines(self):
        return pathlib.Path(self.log.name).read_text()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
