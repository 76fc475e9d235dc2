"""What users did, read from log and archive, each event once."""
