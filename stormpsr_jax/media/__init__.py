"""Pictures and video in: trees of files, containers, decoding, framing."""
