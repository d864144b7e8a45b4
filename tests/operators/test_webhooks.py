"""Webhooks, at a receiver that fails for a minute and a node that is killed with 100 sessions: every event arrives, each
id once but for repetitions, in order for each user, with signatures that the library `standardwebhooks` verifies."""

import base64
import http.server
import json
import os
import sys
import threading
import time

from standardwebhooks import Webhook
from support import Node, Redis, eventually, request

SECRET = "whsec_" + base64.b64encode(os.urandom(32)).decode()
#: For how long the receiver fails.
AWAY = float(os.environ.get("AWAY", "60"))
SESSIONS, CALLS = 100, 5


class Receiver:
    """Remembers each event in the order in which it came first."""

    def __init__(self):
        self.events, self.repeated, self.refused, self.fails = {}, 0, 0, False
        self.lock = threading.Lock()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(receiver.take(dict(self.headers), body))
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, headers, body):
        headers = {name.lower(): value for name, value in headers.items()}
        event = Webhook(SECRET).verify(body, headers)
        with self.lock:
            if self.fails:
                self.refused += 1
                return 503
            known = self.events.setdefault(headers["webhook-id"], event)
            assert known == event, f"one id, two events: {known} {event}"
            self.repeated += known is not event
            return 204

    def of(self, kind):
        with self.lock:
            return [event["data"] for event in self.events.values() if event["type"] == kind]

    def kinds_of(self, user):
        """What the user's events are, in the order in which they came."""
        with self.lock:
            events = list(self.events.values())
        people = lambda data: [data.get("name")] + [data[side]["name"] for side in ("caller", "callee") if side in data]
        return [event["type"] for event in events if user in people(event["data"])]


def open_session(node, name):
    status, text = request("POST", f"{node.url}/v1/sessions", {"login": {"name": name}})
    assert status == 201, text
    return json.loads(text)


def call(node, caller, callee, names):
    node.send(caller["token"], {"type": "offer", "name": names[1], "offer": {}})
    node.send(callee["token"], {"type": "answer", "name": names[0], "answer": {}})
    report = {"type": "report", "state": "connected", "pair": "relay", "ms": 12}
    node.send(caller["token"], {**report, "name": names[1]})


def check_alone():
    """A node without Redis."""
    receiver = Receiver()
    node = Node(**{"webhooks.url": receiver.url, "webhooks.secret": SECRET})
    receiver.fails = True
    alice, bob = open_session(node, "alice"), open_session(node, "bob")
    call(node, alice, bob, ["alice", "bob"])
    eventually("a refused event", lambda: receiver.refused)
    receiver.fails = False
    node.send(bob["token"], {"type": "leave"})
    eventually("the end of the call", lambda: receiver.of("call.ended"))
    [ended] = receiver.of("call.ended")
    assert (ended["caller"]["name"], ended["callee"]["name"]) == ("alice", "bob"), ended
    assert (ended["reason"], ended["pair"]) == ("hangup", "relay"), ended
    assert ended["duration_ms"] >= 0 and ended["started_at"] <= ended["answered_at"], ended
    request("DELETE", f"{node.url}/v1/sessions/{bob['session']}", key=bob["token"])
    eventually("the end of bob's session", lambda: receiver.of("session.ended"))
    [began] = [data for data in receiver.of("session.started") if data["name"] == "bob"]
    assert receiver.of("session.ended") == [{**began, "reason": "closed"}], receiver.of("session.ended")
    expected = ["session.started", "call.started", "call.answered", "call.ended", "session.ended"]
    assert receiver.kinds_of("bob") == expected, receiver.kinds_of("bob")
    assert receiver.kinds_of("alice") == expected[:-1]
    node.stop()
    print("memory: every event, in order;", receiver.refused, "attempts refused")


def check_killed():
    """Two nodes over Redis, one of which is killed while the receiver fails."""
    receiver, redis = Receiver(), Redis()
    times = {"presence.ttl": "9s", "presence.grace": "2s", "presence.node_ttl": "2s", "http.session_ttl": "5m"}
    settings = {"redis.url": redis.url, "webhooks.url": receiver.url, "webhooks.secret": SECRET, **times}
    killed, other = Node(**settings), Node(**settings)
    names = [f"user {number}" for number in range(SESSIONS)]
    sessions = [open_session(killed, name) for name in names]
    for number in range(0, 2 * CALLS, 2):
        call(killed, *sessions[number : number + 2], names[number : number + 2])
    eventually("all answers", lambda: len(receiver.of("call.answered")) == CALLS)
    eventually("all starts", lambda: len(receiver.of("session.started")) == SESSIONS)
    receiver.fails = True
    begun = time.monotonic()
    killed.kill()
    late = [open_session(other, f"late {number}") for number in range(10)]
    for session in late:
        request("DELETE", f"{other.url}/v1/sessions/{session['session']}", key=session["token"])
    eventually("a refused event", lambda: receiver.refused)
    time.sleep(max(0, AWAY - (time.monotonic() - begun)))
    receiver.fails = False
    ends = SESSIONS + len(late)
    eventually("all ends", lambda: len(receiver.of("session.ended")) == ends, AWAY * 2 + 60)
    took = time.monotonic() - begun - AWAY
    ended = receiver.of("session.ended")
    assert sorted(data["name"] for data in ended) == sorted(names + [f"late {number}" for number in range(10)])
    assert {data["reason"] for data in ended if data["name"] in names} == {"node_lost"}
    assert {data["reason"] for data in ended if data["name"] not in names} == {"closed"}
    calls = receiver.of("call.ended")
    assert len(calls) == CALLS and {data["reason"] for data in calls} == {"node_lost"}, calls
    assert {data["call"] for data in calls} == {data["call"] for data in receiver.of("call.started")}
    for number, name in enumerate(names):
        expected = ["call.started", "call.answered", "call.ended"] if number < 2 * CALLS else []
        expected = ["session.started", *expected, "session.ended"]
        assert receiver.kinds_of(name) == expected, (name, receiver.kinds_of(name))
    # Nothing more comes.
    count = len(receiver.events)
    time.sleep(6)
    assert len(receiver.events) == count, list(receiver.events)[count:]
    status, metrics = request("GET", f"{other.admin}/metrics")
    assert 'switchboard_webhooks_total{result="delivered"}' in metrics, metrics
    assert SECRET not in other.lines() + killed.lines()
    print(
        f"redis: {count} events, {receiver.repeated} repetitions, {receiver.refused} attempts refused;",
        f"all had arrived {took:.0f} s after the receiver was back",
    )
    other.stop()
    redis.stop()


if __name__ == "__main__":
    check_alone()
    check_killed()
    sys.exit(0)
