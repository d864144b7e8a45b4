"""A session that outlives its connections: it logs in, resumes, and says and hears everything once and in order."""

import asyncio
import contextlib
import itertools
import json
import random
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from .errors import SwitchboardError
from .outbox import Outbox

# Close codes after which no other connection helps. After any other a new one resumes the session.
STOP = {
    1000: "closed", 1009: "too_large", 4000: "replaced", 4003: "forbidden", 4005: "kicked", 4009: "not_logged_in",
}
NAME_LOST = 4001
DRAINING = 1012
GIVEN_UP = 4900  # a close code of ours, which leaves the session as it is
# What a login reply leaves out.
HEARTBEAT = {"busy_ms": 4000, "idle_ms": 15_000, "answer_ms": 4000}
OPEN_WITHIN = 4
# A connection of this age was a good one: the waits begin anew.
STABLE = 5
# What the app has taken is confirmed after so many messages or bytes, and with each ping.
CONFIRM_MESSAGES, CONFIRM_BYTES = 32, 128 * 1024
# What may wait for the app; then nothing more is read.
INBOX = 256


class Session:
    """
    async with Session(["wss://one.example.org/ws", "wss://two.example.org/ws"], "alice") as session:
        await session.send("bob", {"hello": 1})
        async for message in session:
            ...

    The messages are those of the server, without `seq`: `offer`, `answer`, `candidate`, `message`, `leave`, `presence`,
    `ice_servers`. One is of our own: `{"type": "missed", "resumed": bool}` says that something may be lost. Without
    `resumed` another session has begun, and the calls of the old one are over.
    """

    def __init__(self, urls, name, *, token=None, reconnect=(0.5, 20)):
        self.name = name
        self.node = self.session = None
        self.ice_servers = []
        self._urls = [urls] if isinstance(urls, str) else list(urls)
        self._token = token
        self._reconnect = reconnect
        self._resume = None
        self._heard_seq = self._taken_seq = self._confirmed_seq = None
        self._taken = [0, 0]  # messages and bytes since the last confirmation
        self._inbox = asyncio.Queue()
        self._room = asyncio.Event()
        self._stirred = asyncio.Event()
        self._outbox = Outbox(self._say, self._stirred.set)
        self._busy = False
        self._heartbeat = HEARTBEAT
        self._heard_at = 0.0
        self._outgoing = None  # of the connection that there is
        self._online = None
        self._ended = None
        self._closing = None  # a task that nobody holds may be collected
        self._task = None

    async def open(self):
        """Connects and logs in. Tries until it succeeds, or is refused."""
        self._online = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._done)
        return await self._online

    async def close(self):
        """Ends the session: whoever is in a call with it hears `leave`."""
        self._stop(SwitchboardError("closed", "The session was closed"))
        if self._task:
            await asyncio.wait([self._task])

    async def __aenter__(self):
        return await self.open()

    async def __aexit__(self, *_):
        await self.close()

    @property
    def busy(self):
        """Whether there is a call: then silence is noticed sooner."""
        return self._busy

    @busy.setter
    def busy(self, busy):
        self._busy = busy
        self._stirred.set()

    def request(self, message):
        """Sends a request of the protocol, and returns the future of its answer; it fails with a `SwitchboardError`."""
        if self._ended:
            raise self._ended
        return self._outbox.add(message)

    async def signal(self, type, name, body):
        """Sends an `offer`, `answer`, `candidate` or `message`. Returns `delivered` or `queued`."""
        return (await self.request({"type": type, "name": name, type: body}))["status"]

    async def send(self, name, message):
        return await self.signal("message", name, message)

    async def presence(self, names):
        return (await self.request({"type": "presence", "names": list(names)}))["users"]

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self._inbox.empty() and self._ended:
            if self._ended.code == "closed":
                raise StopAsyncIteration
            raise self._ended
        message, size, resume = await self._inbox.get()
        self._room.set()
        if message is None:
            return await self.__anext__()
        seq = message.pop("seq", None)
        if seq is not None and resume == self._resume:
            self._confirm(seq, size)
        return message

    def _confirm(self, seq, size):
        self._taken_seq = seq
        self._taken = [self._taken[0] + 1, self._taken[1] + size]
        if self._taken[0] >= CONFIRM_MESSAGES or self._taken[1] >= CONFIRM_BYTES:
            self._say({"type": "ack", **self._unconfirmed()})

    def _unconfirmed(self):
        if self._taken_seq == self._confirmed_seq:
            return {}
        self._confirmed_seq, self._taken = self._taken_seq, [0, 0]
        return {"seq": self._taken_seq}

    # Connections.

    def _done(self, task):
        if not task.cancelled() and task.exception():
            self._stop(SwitchboardError("failed", f"{task.exception()!r}"))

    async def _run(self):
        failures = 0
        for url in itertools.cycle(self._urls):
            began = time.monotonic()
            logged_in, code = await self._connection(url)
            if self._ended:
                return
            if code in STOP:
                return self._stop(SwitchboardError(STOP[code], f"The server closed the connection ({code})"))
            if code == NAME_LOST:
                self._lose()
            failures = 0 if logged_in and time.monotonic() - began > STABLE else failures + 1
            least, most = self._reconnect
            # A random time, so that the clients of a node that died do not come back in one moment.
            delay = random.random() * min(most, least * 2 ** min(failures, 30))
            await asyncio.sleep(0 if code == DRAINING and logged_in else delay)

    async def _connection(self, url):
        """One connection, from its beginning to its end: whether it was logged in, and its close code."""
        self.node = None
        try:
            # It pings by itself, in the rhythm that the server asks for.
            options = {"ping_interval": None, "max_size": 2**22, "compression": None, "close_timeout": 2}
            socket = await connect(url, open_timeout=OPEN_WITHIN, **options)
        except (OSError, TimeoutError, WebSocketException):
            return False, None
        self._heard_at = time.monotonic()
        self._outgoing = asyncio.Queue()
        helpers = [asyncio.create_task(self._write(socket)), asyncio.create_task(self._beat(socket))]
        code = None
        try:
            self._login(self._outgoing)
            async for text in socket:
                self._hear(json.loads(text), len(text), socket)
                while self._inbox.qsize() >= INBOX:
                    self._room.clear()
                    await self._room.wait()
        except ConnectionClosed:
            pass
        finally:
            code = socket.close_code
            for helper in helpers:
                helper.cancel()
            self._outgoing = None
            self._outbox.lost()
            if self._ended:
                await socket.close(1000)
        return self.node is not None, code

    async def _write(self, socket):
        try:
            while True:
                await socket.send(await self._outgoing.get())
        except ConnectionClosed:
            pass

    def _say(self, message):
        if self._outgoing is not None:
            text = message if isinstance(message, str) else json.dumps(message, separators=(",", ":"))
            self._outgoing.put_nowait(text)

    async def _beat(self, socket):
        """Notices silence in time to resume."""
        while True:
            self._stirred.clear()
            beat = self._heartbeat["busy_ms" if self.busy or self._outbox.is_waiting else "idle_ms"] / 1000
            wait = self._heard_at + beat - time.monotonic()
            if self._inbox.qsize() >= INBOX:
                wait = beat  # It is the app that does not read.
            if wait > 0:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stirred.wait(), wait)
                continue
            asked = time.monotonic()
            self._say({"type": "ping", **self._unconfirmed()})
            await asyncio.sleep(self._heartbeat["answer_ms"] / 1000)
            if self._heard_at < asked:
                socket.transport.abort()
                return

    # The session.

    def _login(self, outgoing):
        if outgoing is not self._outgoing:
            return  # By now there is another connection.
        login = {"type": "login", "name": self.name, "resumable": True}
        if self._token is not None:
            login["token"] = self._token() if callable(self._token) else self._token
        if self._resume:
            login["resume"] = self._resume
            if self._heard_seq:
                login["last"] = self._heard_seq
        self._say(login)

    def _hear(self, message, size, socket):
        self._heard_at = time.monotonic()
        kind = message["type"]
        if kind == "login":
            self._entered(message) if message["success"] else self._refused(message, socket)
        elif "id" in message:
            self._outbox.settle(message)
        elif kind == "status":
            if message.get("missed"):
                self._give({"type": "missed", "resumed": True})
        elif kind not in ("pong", "goaway", "error", "ack"):
            # After a goaway the close says the same. An error without an id is of nothing that was sent here.
            if kind == "ice_servers":
                self.ice_servers = message["iceServers"]
            self._heard_seq = message.get("seq", self._heard_seq)
            self._give(message, size)

    def _give(self, message, size=0):
        self._inbox.put_nowait((message, size, self._resume))

    def _entered(self, reply):
        self.name, self.node, self.session = reply["name"], reply["node"], reply["session"]
        self._resume = reply["resume"]
        self._heartbeat = {**HEARTBEAT, **reply.get("heartbeat", {})}
        self.ice_servers = reply.get("iceServers", [])
        self._outbox.opened(reply.get("limits", {}))
        if not self._online.done():
            self._online.set_result(self)

    def _refused(self, reply, socket):
        code, retry = reply["code"], reply.get("retry_after_ms")
        if code == "unavailable" and retry is None:
            retry = 1000
        if code == "resume_failed":
            self._lose()
            self._login(self._outgoing)
        elif code == "draining":
            self._closing = asyncio.ensure_future(socket.close(GIVEN_UP))
        elif retry is not None and (self._online.done() or code != "name_taken"):
            asyncio.get_running_loop().call_later(retry / 1000, self._login, self._outgoing)
        else:
            self._stop(SwitchboardError(code, reply.get("message", ""), retry))
            self._closing = asyncio.ensure_future(socket.close(1000))

    def _lose(self):
        """The session is gone, and another one will have its name."""
        self._resume = self._heard_seq = self._taken_seq = self._confirmed_seq = None
        self._outbox.forget()
        self._give({"type": "missed", "resumed": False})

    def _stop(self, error):
        if self._ended:
            return
        self._ended = error
        self._outbox.fail(error)
        if self._online and not self._online.done():
            self._online.set_exception(error)
        self._give(None)  # wakes who waits
        if self._task and self._task is not asyncio.current_task() and error.code == "closed":
            self._task.cancel()
