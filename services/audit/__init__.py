"""The audit trail: who used which key for what, kept so that a change of it shows."""
