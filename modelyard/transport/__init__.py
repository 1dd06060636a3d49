"""How the client's calls reach the service: told once as stories, performed by a sync or an async runner."""
