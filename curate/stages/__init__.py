"""The stages that ship with the package."""
