"""Recipes for tiny models that the real engines load: made here, offline, on a CPU."""
