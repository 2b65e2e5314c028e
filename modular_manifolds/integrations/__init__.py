"""Callbacks for trainers of other libraries, one file for each library."""
