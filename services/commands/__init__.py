"""The commands of ``portrait``, one file a subject.

Belongs here: arguments, what a command prints, its exit code. Not here: what it does, which the
other rooms do; the entry point is `services.commands.cli`.
"""
