"""What the service keeps, one module a resource: its calls, told as stories."""
