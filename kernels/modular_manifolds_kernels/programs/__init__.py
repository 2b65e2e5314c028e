"""The Triton programs, one file each. Importing one needs Triton, so nothing imports them before a launch."""
