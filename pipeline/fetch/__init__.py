"""Bring a corpus onto this machine: in pieces, over networks that fail, to be stopped and started again at any point."""
