"""The Triton programs, one file each. They need Triton, so they are imported at the first launch only."""
