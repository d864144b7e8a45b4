"""Calls, whatever makes their connections: which signal belongs to which call, and who gives way when offers cross."""

import logging
import re
import time
from typing import Protocol

from .errors import SwitchboardError

logger = logging.getLogger("switchboard_client")

# Candidates that wait for the description they belong to.
MOST_EARLY = 256


class Peer(Protocol):
    """What a call needs of a WebRTC library; `switchboard_client.aiortc` has it for aiortc.

    Descriptions are `{"type", "sdp"}` and contain their candidates.
    """

    async def offer(self) -> dict: ...
    async def answer(self, offer: dict) -> dict: ...
    async def accept(self, answer: dict) -> None: ...
    async def candidate(self, candidate: dict) -> None: ...
    async def close(self) -> None: ...


class Call:
    """A call with `name`. `state` is `ringing`, `calling`, `connecting`, `connected` or `ended`."""

    def __init__(self, calls, name, state):
        self.name = name
        self.state = state
        self.reason = None
        self.peer = None
        self._calls = calls
        self._began = time.monotonic()
        self._offer = None  # the other's last
        self._said = None  # our last description, until the call is connected
        self._early = []

    async def accept(self):
        """Takes an incoming call."""
        if self.state == "ringing":
            self.state = "connecting"
            await self._answer(self._offer)

    async def hangup(self):
        """Ends the call, or declines it."""
        if self.state != "ended":
            self._calls.request({"type": "leave", "name": self.name})
            await self._end("hangup")

    def connected(self):
        """The peer says that there is a connection."""
        if self.state == "connecting":
            self.state = "connected"
            ms = round((time.monotonic() - self._began) * 1000)
            self._calls.request({"type": "report", "name": self.name, "state": "connected", "ms": ms})

    async def _call(self):
        peer = self.peer = self._calls.new_peer(self)
        offer = await peer.offer()
        # Meanwhile an offer of the other's may have taken its place, or the call may have ended.
        if self.peer is peer and self.state == "calling":
            self._say(offer)

    async def _answer(self, offer):
        self._offer = offer
        self.peer = self.peer or self._calls.new_peer(self)
        answer = await self.peer.answer(offer)
        if self.state == "ended":
            return
        # The client library wants to know which of its offers is answered.
        self._say({**answer, "to": mark(offer)})
        await self._flush()

    def _say(self, description):
        self._said = description
        self._calls.say(self, description)

    async def _hear(self, kind, body):
        if kind == "candidate":
            if self._early is None:
                await self._candidate(body)
            elif len(self._early) < MOST_EARLY:
                self._early.append(body)
        elif kind == "answer":
            if self.state == "calling" and self._said and body.get("to", mark(self._said)) == mark(self._said):
                self.state = "connecting"
                self._offer = body
                await self.peer.accept(body)
                await self._flush()
        elif self.state == "ringing":
            self._offer = body
        elif self.state == "calling":
            await self._collide(body)
        elif mark(self._offer) == mark(body):
            self._repeat()  # It has not heard our answer.
        else:
            await self._answer(body)

    async def _collide(self, offer):
        # The client library gives way to all clients of other makes, which it knows by their having no `leg`. Among
        # these the smaller name gives way.
        if "leg" in offer or self._calls.session.name > self.name:
            return
        await self.peer.close()
        self.peer = self._said = None
        self.state = "connecting"
        await self._answer(offer)

    def _repeat(self):
        """Says again what the other may not have heard."""
        if self._said and self.state in ("calling", "connecting"):
            self._calls.say(self, self._said)

    async def _flush(self):
        early, self._early = self._early or [], None
        for candidate in early:
            await self._candidate(candidate)

    async def _candidate(self, candidate):
        try:
            await self.peer.candidate(candidate)
        except Exception:  # One of an offer that was ignored fits nothing.
            pass

    async def _end(self, reason):
        if self.state == "ended":
            return
        self.state, self.reason = "ended", reason
        self._calls.forget(self)
        if self.peer:
            await self.peer.close()
        await self._calls.ended(self)


class Calls:
    """
    calls = Calls(session, lambda call: aiortc.Peer(call), ringing=Call.accept)
    await calls.call("bob")
    async for message in session:
        await calls.hear(message)
    """

    def __init__(self, session, new_peer, ringing=None, ended=None):
        self.session = session
        self.new_peer = new_peer
        self._ringing = ringing
        self._ended = ended
        self._calls = {}
        self._byes = {}

    async def call(self, name):
        call = self._calls.get(name)
        if call:
            if call.state != "ringing":
                raise SwitchboardError("already_in_call", f"There is a call with {name}")
            await call.accept()  # Whoever calls somebody who is calling wants to take that call.
            return call
        call = self._begin(name, "calling")
        await call._call()
        return call

    async def hear(self, message):
        """Whether a message of the session was about a call."""
        kind, name = message["type"], message.get("name")
        call = self._calls.get(name)
        body = message.get(kind)
        if kind in ("offer", "answer") and not is_description(body):
            return True
        if kind == "offer" and (call is None or begins_anew(call, body)):
            if call:
                await call._end("hangup")
            call = self._begin(name, "ringing")
            await self._heard(call, kind, body)
            if self._ringing:
                await self._ringing(call)
        elif kind in ("offer", "answer", "candidate"):
            if call:
                await self._heard(call, kind, body)
        elif kind == "leave":
            reason = self._byes.pop(name, None) or message.get("reason", "hangup")
            if call:
                await call._end(reason)
        elif kind == "message" and isinstance(body, dict) and "switchboard" in body:
            if call:
                self._byes[name] = body["switchboard"].get("bye")  # why it is about to leave
        elif kind == "missed":
            for call in list(self._calls.values()):
                call._repeat() if message["resumed"] else await call._end("lost")
            return False
        else:
            return False
        return True

    async def _heard(self, call, kind, body):
        try:
            await call._hear(kind, body)
        except Exception:  # What the other sent is of no use to the WebRTC library.
            logger.warning("the %s of %s ends the call", kind, call.name, exc_info=True)
            self.request({"type": "leave", "name": call.name})
            await call._end("failed")

    async def close(self):
        for call in list(self._calls.values()):
            await call.hangup()

    # For calls.

    def _begin(self, name, state):
        call = self._calls[name] = Call(self, name, state)
        self.session.busy = True
        return call

    def forget(self, call):
        if self._calls.get(call.name) is call:
            del self._calls[call.name]
            self._byes.pop(call.name, None)
        self.session.busy = bool(self._calls)

    async def ended(self, call):
        if self._ended:
            await self._ended(call)

    def request(self, message):
        try:
            return self.session.request(message)
        except SwitchboardError:
            return None  # The session has ended, and the call with it.

    def say(self, call, description):
        sent = self.request({"type": description["type"], "name": call.name, description["type"]: description})
        if sent:
            sent.add_done_callback(lambda sent: self._said(call, sent))

    def _said(self, call, sent):
        error = None if sent.cancelled() else sent.exception()
        if error and call.state in ("calling", "connecting"):
            reason = "unavailable" if getattr(error, "code", "") == "user_unavailable" else "failed"
            sent.get_loop().create_task(call._end(reason))


def is_description(body):
    return isinstance(body, dict) and isinstance(body.get("sdp"), str)


def begins_anew(call, offer):
    """Whether an offer is of another call than the one that there is: that of another peer connection."""
    if call.state not in ("connecting", "connected") or call._offer is None:
        return False
    legs = [call._offer.get("leg"), offer.get("leg")]
    if None not in legs:
        return legs[0] != legs[1]
    return origin(call._offer) != origin(offer)


def origin(description):
    """The first two words of the `o=` line, which are the same for all descriptions of a peer connection."""
    found = re.search(r"^o=(\S+ \S+)", description["sdp"], re.MULTILINE)
    return found and found[1]


def mark(description):
    """What distinguishes a description from others; candidates that were found meanwhile do not change it."""
    return ",".join(found[0] for found in re.finditer(r"^(o=|a=ice-ufrag:)[^\r\n]*", description["sdp"], re.MULTILINE))
