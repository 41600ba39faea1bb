"""The stream of one job: how an entry is encoded, written, read and followed."""
