"""Plays clients/transcripts.json, whose `about` says what the steps mean."""

import asyncio
import json
import time
import unittest
from pathlib import Path

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from switchboard_client import Calls, Session, SwitchboardError, session

TRANSCRIPTS = json.loads((Path(__file__).parents[2] / "transcripts.json").read_text())
LOGGED_IN = {"type": "login", "success": True, "name": "alice", "session": "0" * 31 + "1", "node": "one",
             "iceServers": [], "resumed": False, "grace_ms": 10000, "resume": "secret"}
WITHIN = 15
# On a machine that is busy even the other end of this process is late.
session.OPEN_WITHIN = WITHIN


class Connection:
    def __init__(self, address, socket):
        self.address = address
        self.socket = socket
        self.frames = asyncio.Queue()


class FakePeer:
    """It is connected once it has both descriptions."""

    made = 0

    def __init__(self, call, play):
        FakePeer.made += 1
        self.call, self.play, self.id, self.version = call, play, FakePeer.made, 0

    def describe(self, kind):
        self.version += 1
        return {"type": kind, "sdp": f"o=alice {self.id} {self.version}\r\na=ice-ufrag:{self.id}.{self.version}\r\n"}

    async def offer(self):
        return self.describe("offer")

    async def answer(self, offer):
        if self.play.connectable:
            asyncio.get_running_loop().call_soon(self.call.connected)
        return self.describe("answer")

    async def accept(self, answer):
        self.call.connected()

    async def candidate(self, candidate):
        pass

    async def close(self):
        pass


class Play:
    def __init__(self):
        self.connections = asyncio.Queue()
        self.connection = None
        self.known = {}
        self.sent = []
        self.events = asyncio.Queue()
        self.calls_of = {}
        self.connectable = True
        self.refused_at = 0.0

    async def run(self, steps):
        servers = [await serve(self.accept(address), "127.0.0.1", 0) for address in "AB"]
        urls = [f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]
        self.session = Session(urls, "alice", reconnect=(0.02, 0.02))
        self.calls = Calls(self.session, lambda call: FakePeer(call, self), ringing=self.rings)
        self.opening = asyncio.ensure_future(self.session.open())
        self.listening = asyncio.ensure_future(self.listen())
        try:
            for number, step in enumerate(steps, 1):
                for repetition in range(1, step.get("times", 1) + 1):
                    (kind, what), *_ = step.items()
                    try:
                        await asyncio.wait_for(getattr(self, "step_" + kind)(self.filled(what, repetition)), WITHIN)
                        assert time.monotonic() >= self.refused_at + step.get("after_ms", 0) / 1000, "too soon"
                    except (AssertionError, asyncio.TimeoutError) as error:
                        raise AssertionError(f"step {number}, {step}: {error!r}") from error
        finally:
            await self.session.close()
            for task in (self.opening, self.listening):
                task.cancel()
            await asyncio.gather(self.opening, self.listening, *self.sent, return_exceptions=True)
            for server in servers:
                server.close()

    def accept(self, address):
        async def accepted(socket):
            connection = Connection(address, socket)
            await self.connections.put(connection)
            try:
                async for text in socket:
                    await connection.frames.put(json.loads(text))
            except ConnectionClosed:
                pass
            await connection.frames.put(None)

        return accepted

    async def listen(self):
        await self.opening
        async for message in self.session:
            if not await self.calls.hear(message):
                await self.events.put(message)

    async def rings(self, call):
        self.calls_of[call.name] = call

    def filled(self, what, repetition):
        if isinstance(what, dict):
            return {key: self.filled(value, repetition) for key, value in what.items()}
        if what == "#":
            return repetition
        if isinstance(what, str):
            return what.replace("#", str(repetition))
        return what

    def known_in(self, what):
        return {key: self.known.get(value, value) if isinstance(value, str) else value for key, value in what.items()}

    def matches(self, expected, heard):
        if isinstance(expected, dict):
            return isinstance(heard, dict) and all(self.matches(one, heard.get(key)) for key, one in expected.items())
        if isinstance(expected, str) and expected.startswith("$"):
            return heard is not None and self.known.setdefault(expected, heard) == heard
        return expected == "*" or expected == heard

    async def next_frame(self, but_pings=True):
        while True:
            frame = await self.connection.frames.get()
            if frame and frame["type"] == "ping" and but_pings:
                await self.connection.socket.send('{"type":"pong"}')
            elif frame and frame["type"] == "report":
                await self.connection.socket.send(json.dumps({"type": "ack", "id": frame["id"], "status": "delivered"}))
            else:
                return frame

    async def step_logs_in(self, fields):
        await self.step_connects("A")
        await self.step_sends({"type": "login", "name": "alice", "resumable": True})
        await self.step_server({**LOGGED_IN, **fields})

    async def step_connects(self, address):
        self.connection = await self.connections.get()
        assert self.connection.address == address, self.connection.address

    async def step_sends(self, expected):
        frame = await self.next_frame(but_pings=expected.get("type") != "ping")
        assert self.matches(expected, frame), f"sent {frame}"

    async def step_server(self, message):
        if "retry_after_ms" in message:
            self.refused_at = time.monotonic()
        await self.connection.socket.send(json.dumps(self.known_in(message)))

    async def step_closes(self, code):
        await self.connection.socket.close(code)

    async def step_breaks(self, _):
        self.connection.socket.transport.abort()

    async def step_silent(self, _):
        try:
            frame = await asyncio.wait_for(self.next_frame(), 0.15)
        except asyncio.TimeoutError:
            return
        raise AssertionError(f"sent {frame}")

    async def step_gone(self, code):
        while await self.connection.frames.get() is not None:
            pass
        assert code is True or self.connection.socket.close_code == code, self.connection.socket.close_code

    async def step_send(self, what):
        self.sent.append(asyncio.ensure_future(self.session.send(*what)))
        await asyncio.sleep(0)

    async def step_answers(self, what):
        number, expected = what
        try:
            answer = await self.sent[number - 1]
        except SwitchboardError as error:
            answer = error.code
        assert answer == expected, answer

    async def step_close(self, _):
        asyncio.ensure_future(self.session.close())

    async def step_emits(self, expected):
        event = await self.events.get()
        assert self.matches(expected, event), f"was given {event}"

    async def step_refused(self, code):
        try:
            await self.opening
        except SwitchboardError as error:
            assert error.code == code, error.code
        else:
            raise AssertionError("it was let in")

    async def step_ended(self, code):
        try:
            await self.listening
        except SwitchboardError as error:
            assert error.code == code, error.code
        else:
            raise AssertionError("it was closed")

    async def step_call(self, name):
        self.calls_of[name] = await self.calls.call(name)

    async def step_accept(self, name):
        await self.calls_of[name].accept()

    async def step_hangup(self, name):
        await self.calls_of[name].hangup()

    async def step_unconnectable(self, _):
        self.connectable = False

    async def step_reason(self, what):
        assert self.calls_of[what[0]].reason == what[1], self.calls_of[what[0]].reason

    async def step_state(self, what):
        name, state = what
        while name not in self.calls_of or self.calls_of[name].state != state:
            await asyncio.sleep(0.005)


class Transcripts(unittest.IsolatedAsyncioTestCase):
    pass


for part, transcripts in TRANSCRIPTS.items():
    if part == "about":
        continue
    for title, steps in transcripts.items():

        async def play(self, steps=steps):
            await Play().run(steps)

        setattr(Transcripts, f"test {part}: {title}", play)

if __name__ == "__main__":
    unittest.main()
