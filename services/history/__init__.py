"""History of users, read from log and archive, each event once."""
