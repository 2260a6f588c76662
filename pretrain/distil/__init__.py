"""Distillation: the student's recipe, its teachers, its losses by stage and its task."""
