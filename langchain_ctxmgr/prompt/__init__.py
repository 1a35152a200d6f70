"""What goes in, and where."""
