"""The experiment page: a self-contained HTML file that compares the variants of an experiment."""

from flows.pages.experiment.page import write_experiment_page

__all__ = ["write_experiment_page"]
