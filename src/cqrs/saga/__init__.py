"""Sagas: distributed transactions that undo what they did."""
