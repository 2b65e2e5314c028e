"""The arena: optimisers beside each other on plain torch models, each at its own best learning rate."""
