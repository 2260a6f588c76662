"""Distillation: what a student learns, from whom, and in which shape."""
