"""The web console: what the topics say, folded for a page, kept in a database, pushed as it comes.

It decides nothing. Commands that people give on the page go to `driftgate.commands`, as those of
the command line do.
"""
