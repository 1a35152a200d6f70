"""What is remembered, and what matters now."""
