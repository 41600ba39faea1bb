"""What operators are given, read and run on this machine: images, containers, units, manifests, rules for alerts."""
