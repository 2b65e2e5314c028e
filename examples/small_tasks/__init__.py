"""Small real tasks for models of many kinds: `draws` makes batches, `models` the models."""
