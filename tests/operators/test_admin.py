"""Holds a live node to docs/src/schema/admin.json: Schemathesis makes requests from it and checks every answer."""

import json
import subprocess
import sys

from support import KEY, ROOT, Node, Redis, eventually, request

SCHEMA = ROOT / "docs/src/schema/admin.json"


def check(kind, settings):
    node = Node(**settings)
    # Long enough for the whole run: nobody polls these sessions.
    for name in ["alice", "bob"]:
        node.login(name)
    status, text = request("GET", f"{node.admin}/v1/users", key=KEY)
    assert [user["name"] for user in json.loads(text)["users"]] == ["alice", "bob"], text
    command = [
        str(ROOT / "target/operators-venv/bin/schemathesis"), "run", str(SCHEMA), "--url", node.admin,
        "--header", f"Authorization: Bearer {KEY}", "--exclude-operation-id", "drainNode", "--max-examples", "10",
        "--checks", "all", "--phases", "examples,coverage,fuzzing", "--seed", "1", "--no-color",
    ]
    # Schemathesis keeps what it found where it runs.
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT / "target")
    assert ran.returncode == 0, ran.stdout[-12000:] + ran.stderr[-2000:]
    print(kind, *[line for line in ran.stdout.splitlines() if "generated" in line or "passed" in line], sep="\n  ")
    status, text = request("POST", f"{node.admin}/v1/node/drain", key=KEY)
    assert (status, json.loads(text)["draining"]) == (202, True), text
    assert node.process.wait(30) == 0
    log = node.lines()
    assert KEY not in log
    audited = [json.loads(line) for line in log.splitlines() if '"target":"audit"' in line]
    assert any(line["action"] == "drain" for line in audited), log[-2000:]
    assert any(line["action"] == "kick" for line in audited), log[-2000:]
    assert any(line["action"] == "revoke" and "sub=" in line["subject"] for line in audited), log[-2000:]
    assert all(line["from"] for line in audited)


def main():
    check("memory", {"http.session_ttl": "5m"})
    redis = Redis()
    try:
        check("redis", {"http.session_ttl": "5m", "redis.url": redis.url})
    finally:
        redis.stop()


if __name__ == "__main__":
    sys.exit(main())
