"""What the server has not acknowledged: kept, sent again after a loss, and in order for each receiver."""

import asyncio
import json
import time

from .errors import SwitchboardError

# Refusals that are worth another try with the same id.
AGAIN = ("unavailable", "inbox_full", "rate_limited")
# The server remembers the outcomes of 256 requests.
UNDER_WAY = 200
# Until the server tells its own: of what it allows a second, this share is used, in bursts of so many.
PER_SECOND, SHARE, BURST = 200, 0.8, 64
FRAME_BYTES = 65_536
MOST_WAITING = 1000


class Entry:
    def __init__(self, name, text):
        self.name = name
        self.text = text
        self.sent = False  # on this connection, and not answered
        self.tried = False  # on any
        self.answer = asyncio.get_running_loop().create_future()


class Outbox:
    def __init__(self, send, stirred):
        self._send = send
        self._stirred = stirred  # told when something is sent or answered
        self._entries = {}  # by id, in the order in which they were added
        self._ids = 0
        self._open = False
        self._refused = {}  # until when, by name
        self._not_before = 0.0
        self._limit(PER_SECOND, FRAME_BYTES)
        self._timer = None

    @property
    def is_waiting(self):
        return any(entry.sent for entry in self._entries.values())

    def add(self, message):
        """Takes a request, and returns the future of its answer. What is cancelled before it is sent is not sent."""
        text = json.dumps({**message, "id": self._ids + 1}, separators=(",", ":"), ensure_ascii=False)
        if len(text.encode()) > self._frame_bytes:
            raise SwitchboardError("too_large", f"A message has at most {self._frame_bytes} bytes")
        if len(self._entries) >= MOST_WAITING:
            raise SwitchboardError("overloaded", "Too much waits to be sent")
        self._ids += 1
        entry = self._entries[self._ids] = Entry(message.get("name"), text)
        self.pump()
        return entry.answer

    def opened(self, limits):
        self._open = True
        self._refused.clear()
        self._not_before = 0.0
        self._limit(limits.get("signals_per_second", PER_SECOND), limits.get("frame_bytes", FRAME_BYTES))
        self.pump()

    def _limit(self, per_second, frame_bytes):
        # 0 is no limit.
        self._rate = per_second * SHARE or float("inf")
        self._tokens, self._filled_at = BURST, time.monotonic()
        self._frame_bytes = frame_bytes

    def lost(self):
        """The connection was lost: what was under way goes again, over the next one."""
        self._open = False
        for entry in self._entries.values():
            entry.sent = False

    def forget(self):
        """The session is gone: under another one the server would not recognise a repetition."""
        for id, entry in list(self._entries.items()):
            if entry.tried:
                self._finish(id, SwitchboardError("unavailable", "Whether it was delivered is not known"))

    def fail(self, error):
        self.lost()
        for id in list(self._entries):
            self._finish(id, error)

    def settle(self, reply):
        """An answer of the server."""
        entry = self._entries.get(reply["id"])
        if not entry:
            return
        if reply["type"] != "error":
            self._finish(reply["id"], reply)
        elif reply["code"] not in AGAIN:
            error = SwitchboardError(reply["code"], reply.get("message", ""), reply.get("retry_after_ms"))
            self._finish(reply["id"], error)
        else:
            until = time.monotonic() + reply.get("retry_after_ms", 1000) / 1000
            if reply["code"] == "rate_limited":
                # It is about this client; the others are about one receiver.
                self._not_before = max(self._not_before, until)
                self._tokens = 0
            self._refused[entry.name] = max(self._refused.get(entry.name, 0), until)
            entry.sent = False
        self.pump()

    def _finish(self, id, outcome):
        answer = self._entries.pop(id).answer
        if answer.done():
            return
        if isinstance(outcome, SwitchboardError):
            answer.set_exception(outcome)
            answer.exception()  # Whoever does not wait for the answer need not hear of it.
        else:
            answer.set_result(outcome)

    def pump(self):
        """Sends what may be sent, and comes back when more may."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._open:
            now = time.monotonic()
            wait = self._not_before - now
            if wait <= 0:
                wait = self._send_what_may(now)
            if wait is not None:
                self._timer = asyncio.get_running_loop().call_later(wait, self.pump)
        self._stirred()

    def _send_what_may(self, now):
        """The seconds until more may be sent, if that is a matter of time."""
        waits = []
        under_way = [entry.name for entry in self._entries.values() if entry.sent]
        for id, entry in list(self._entries.items()):
            if entry.sent:
                continue
            if not entry.tried and entry.answer.cancelled():
                self._entries.pop(id)
                continue
            if len(under_way) >= UNDER_WAY:
                break
            # After a refusal everything that was under way to that receiver is answered first, and then repeated in
            # order: until the first is repeated, the server refuses what follows.
            until = self._refused.get(entry.name)
            if until is not None:
                if entry.name in under_way:
                    continue
                if until > now:
                    waits.append(until - now)
                    continue
                del self._refused[entry.name]
            pace = self._pace(now)
            if pace > 0:
                waits.append(pace)
                break
            entry.sent = entry.tried = True
            under_way.append(entry.name)
            self._send(entry.text)
        return min(waits, default=None)

    def _pace(self, now):
        if self._rate == float("inf"):
            return 0
        self._tokens = min(BURST, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0
