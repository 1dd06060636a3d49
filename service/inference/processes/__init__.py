"""Forwards in processes of their own, which may be killed: what ends one costs the service nothing else."""
