"""Says numbers to somebody, and prints what it hears: talker.py ADDRESS,… NAME [WHOM COUNT]"""

import asyncio
import sys

from switchboard_client import Session


async def main(urls, name, whom=None, count="0"):
    async with Session(urls.split(","), name) as session:
        print("online", session.session, flush=True)

        async def say():
            answers = []
            for number in range(int(count)):
                answers.append(asyncio.ensure_future(session.send(whom, number)))
                await asyncio.sleep(0.01)
            print("answered", len(await asyncio.gather(*answers)), session.session, flush=True)

        talking = asyncio.ensure_future(say())
        async for message in session:
            print("heard", message["type"], message.get("name"), message.get("message"), flush=True)
        await talking


asyncio.run(main(*sys.argv[1:]))
