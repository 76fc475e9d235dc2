"""The update path: who applies what stands in the log to profiles."""
