"""What people who come from llama-swap rely on: their config in, requests, what they expect."""
