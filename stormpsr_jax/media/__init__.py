"""Pictures and video in: finding, containers, decoding, framing."""
