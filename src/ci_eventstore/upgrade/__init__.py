"""Bring a store of an earlier format version over to this program's."""
