"""Modules a spec may name that torch lacks, or whose forward there gives more than the next layer takes."""
