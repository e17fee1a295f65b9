"""Simulation: the hardware against the golden model, cycle by cycle."""
