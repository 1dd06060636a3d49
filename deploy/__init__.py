"""How the parts are run. `local` is the embedded stack: all of them on one machine, from one command."""
