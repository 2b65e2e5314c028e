"""Triton kernels for the matrix sign and the Stiefel manifold. Imports torch; Triton at the first launch."""
