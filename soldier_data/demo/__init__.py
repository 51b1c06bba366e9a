"""The demonstration: a support desk's conversations, replayed through every store."""
