"""What a node's parent and its processes say to each other over a pair of sockets.

Either one learns of the other's end at once: its socket closes.
"""

READY, BEAT, STOP = b"r", b".", b"s"
BEAT_EVERY_S = 1.0
# A process whose loop has not turned for so long hangs.
SILENT_S = 30.0
