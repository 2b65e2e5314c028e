"""Callbacks for other people's trainers, each in a file of its own that imports its trainer."""
