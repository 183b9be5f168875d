"""Devices and processes: how a step runs on them, how processes join, how a run is interrupted."""
