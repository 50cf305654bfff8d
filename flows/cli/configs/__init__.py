"""Recipes of builds, additions, trainings and experiments, which `clustermix init` copies."""
