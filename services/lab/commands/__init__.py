"""The laboratory's commands: ``bench``, ``chaos`` and ``compare``.

Importing this adds them to the application; `services.commands.laboratory` does so where it can.
"""

from services.lab.commands import model, proof

__all__ = ["model", "proof"]
