"""Lightweight networks as Keras models, and their pretrained weights."""
