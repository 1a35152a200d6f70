"""Episodes: stretches of a conversation on one subject, recorded to be found again."""
