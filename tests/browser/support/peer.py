"""A peer of another make: aiortc, over a bare WebSocket, in the tutorial's words. It answers calls, or makes one if given a name to call."""

import asyncio
import json
import sys

import websockets
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from aiortc.sdp import candidate_from_sdp


async def main(url, name, other=None):
    async with websockets.connect(url) as socket:

        async def send(**message):
            await socket.send(json.dumps(message))

        await send(type="login", name=name)
        assert json.loads(await socket.recv())["success"]
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        received = 0

        async def count(track):
            nonlocal received
            while True:
                await track.recv()
                received += 1

        def chat(channel):
            @channel.on("message")
            def echo(data):
                channel.send(f"{name} heard {data} and has seen {received}")

        pc.on("track", lambda track: asyncio.ensure_future(count(track)))
        pc.on("datachannel", chat)
        print("ready", flush=True)
        if other:
            chat(pc.createDataChannel("chat"))
            pc.addTrack(VideoStreamTrack())
            await pc.setLocalDescription(await pc.createOffer())
            await send(type="offer", name=other, offer={"type": "offer", "sdp": pc.localDescription.sdp})
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "offer":
                await pc.setRemoteDescription(RTCSessionDescription(message["offer"]["sdp"], "offer"))
                if not pc.getSenders() or not pc.getSenders()[0].track:
                    pc.addTrack(VideoStreamTrack())
                await pc.setLocalDescription(await pc.createAnswer())
                await send(type="answer", name=message["name"], answer={"type": "answer", "sdp": pc.localDescription.sdp})
            elif message["type"] == "answer":
                await pc.setRemoteDescription(RTCSessionDescription(message["answer"]["sdp"], "answer"))
            elif message["type"] == "candidate" and message["candidate"].get("candidate"):
                candidate = candidate_from_sdp(message["candidate"]["candidate"].split(":", 1)[1])
                candidate.sdpMid = message["candidate"]["sdpMid"]
                candidate.sdpMLineIndex = message["candidate"]["sdpMLineIndex"]
                await pc.addIceCandidate(candidate)
            elif message["type"] == "leave":
                print("leave", message["reason"], flush=True)
                break
        await pc.close()


asyncio.run(main(*sys.argv[1:]))
