"""Steps of weights that are DTensors, of which each process holds a shard."""
