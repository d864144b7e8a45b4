"""aiortc as the peer of a call."""

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp


class Peer:
    """`set_up(pc)` adds tracks and channels: before the offer, or after the other's offer is known."""

    def __init__(self, call, ice_servers=(), set_up=lambda pc, calling: None):
        servers = [RTCIceServer(**{key: one[key] for key in ("urls", "username", "credential") if key in one})
                   for one in ice_servers]
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._set_up = set_up
        self._is_set_up = False

        @self.pc.on("connectionstatechange")
        def changed():
            if self.pc.connectionState == "connected":
                call.connected()

    async def offer(self):
        self._add(True)
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self._local()

    async def answer(self, offer):
        await self.pc.setRemoteDescription(RTCSessionDescription(offer["sdp"], "offer"))
        self._add(False)
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        return self._local()

    async def accept(self, answer):
        await self.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))

    async def candidate(self, candidate):
        text = candidate.get("candidate")
        if text:
            parsed = candidate_from_sdp(text.split(":", 1)[1])
            parsed.sdpMid, parsed.sdpMLineIndex = candidate.get("sdpMid"), candidate.get("sdpMLineIndex")
            await self.pc.addIceCandidate(parsed)

    async def close(self):
        await self.pc.close()

    def _add(self, calling):
        if not self._is_set_up:
            self._is_set_up = True
            self._set_up(self.pc, calling)

    def _local(self):
        return {"type": self.pc.localDescription.type, "sdp": self.pc.localDescription.sdp}
