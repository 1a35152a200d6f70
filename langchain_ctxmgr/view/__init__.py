"""Folding the view: from the log to what a model should see for one question and budget."""
