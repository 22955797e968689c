"""The demo: the whole story on one machine, with nothing staged but the regression."""
