"""Sessions and calls at a Switchboard signalling server."""

from .calls import Call, Calls, Peer
from .errors import SwitchboardError
from .session import Session

__all__ = ["Call", "Calls", "Peer", "Session", "SwitchboardError"]
