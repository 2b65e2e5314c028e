"""The command line: `modular-manifolds`."""
