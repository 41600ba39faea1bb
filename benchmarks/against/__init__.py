"""The store beside itself at another commit: `make bench AGAINST=<commit>`, likewise `bench-live` and `bench-peers`."""
