"""Hotseat's server: one endpoint, many models, one of them on the GPU at a time."""
