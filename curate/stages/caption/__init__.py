"""Stages that give a clip a sentence."""
