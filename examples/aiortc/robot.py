"""A robot that takes calls, and echoes what comes by a data channel: python robot.py ws://localhost:9090 robot [whom]"""

import asyncio
import sys

from switchboard_client import Calls, Session, aiortc


async def main(urls, name, whom=None):
    async with Session(urls.split(","), name) as session:

        def echo(channel):
            channel.on("message", lambda text: channel.send(f"{name} heard {text}"))

        def set_up(pc, calling):
            pc.on("datachannel", echo)
            if calling:
                echo(pc.createDataChannel("chat"))

        async def ringing(call):
            print(call.name, "calls", flush=True)
            await call.accept()

        async def ended(call):
            print(call.name, "is gone:", call.reason, flush=True)

        calls = Calls(session, lambda call: aiortc.Peer(call, session.ice_servers, set_up), ringing, ended)
        print(f"I am {session.name}", flush=True)
        if whom:
            await calls.call(whom)
        async for message in session:
            await calls.hear(message)


asyncio.run(main(*sys.argv[1:]))
